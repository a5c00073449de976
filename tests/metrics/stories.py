"""For each alert, stories in which it must fire and others in which it must not.

A story says how the sessions and the machine are at each moment. It is played to the agent's
own evaluation and, through the real exporter's lines, to promtool.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.alerts import Figures
from agent.core.model import (
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    InstanceId,
    Override,
)
from agent.core.view import InstanceView
from agent.supervise.messages.page import KeptState
from agent.wings.messages.out.session.figures import OutboxFigures, SessionOutbox
from agent.wings.messages.out.states import State
from agent.wings.webhooks.deliveries import WebhookFigures
from tests.fakes.supervisor import make_view

S = ConnectionStatus
STEP = 30.0
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class World:
    """Everything at one moment."""

    views: dict[InstanceId, InstanceView] = field(default_factory=dict)
    figures: Figures = field(default_factory=lambda: QUIET)
    routes: int = 0
    """So many routes of the interface may be asked; each fails twenty times in its turn."""
    up: float | None = 1.0
    """What Prometheus notes of the scrape; the agent's own series are there only with 1."""


QUIET = Figures(
    memory_total=16 * GIB,
    memory_used=4 * GIB,
    cpu_ratio=0.2,
    disk_size=100 * GIB,
    disk_available=80 * GIB,
    open_fds=50,
    max_fds=1024,
    started_wall=1_700_000_000.0,
)


@dataclass(frozen=True, slots=True)
class Story:
    alert: str
    title: str
    minutes: int
    at: Callable[[float], World]
    fires: bool
    seen_by_the_agent: bool = True
    """False where there is no agent that could look."""

    @property
    def id(self) -> str:
        return f"{self.alert}: {self.title}"

    def moments(self) -> Iterator[float]:
        for number in range(int(self.minutes * 60 / STEP) + 1):
            yield number * STEP


def verdict(health: Health, state: S = S.CONNECTED, reason: str = "") -> HealthVerdict:
    return HealthVerdict(health, state, reason, "as the story has it")


def sessions(count: int = 1, **more: Any) -> World:
    names = [f"s{number}" for number in range(count)]
    return World({InstanceId(name): make_view(name, **more) for name in names})


def both(first: World, second: World) -> World:
    renamed = {InstanceId(f"other-{id}"): view for id, view in second.views.items()}
    return World({**first.views, **renamed})


def machine(**figures: Any) -> World:
    known = {name: getattr(QUIET, name) for name in QUIET.__dataclass_fields__}
    return World(sessions().views, Figures(**{**known, **figures}))


def on_backend(up: bool, count: int = 2, **more: Any) -> World:
    """Sessions on the backend evo, and one on this machine that is well."""
    remote = {
        id: replace(
            view, instance=replace(view.instance, engine="evolution", settings={"backend": "evo"})
        )
        for id, view in sessions(count, **more).views.items()
    }
    return World(
        {**remote, InstanceId("local"): make_view("local")},
        replace(QUIET, backends={"evo": up, "other": True}),
    )


def until(seconds: float, first: World, then: World) -> Callable[[float], World]:
    return lambda t: first if t < seconds else then


def always(world: World) -> Callable[[float], World]:
    return lambda _: world


def times(t: float, every: float, since: float = 60.0) -> int:
    """How often something happened until then; nothing in the first minute."""
    return max(0, int((t - since) // every) + 1) if t >= since else 0


WELL = sessions()
CORRUPTED = sessions(verdict=verdict(Health.CORRUPTED, S.AUTH_FAILURE))
LOST: dict[str, Any] = {
    "status": S.RECONNECTING,
    "verdict": verdict(Health.DEGRADED, S.RECONNECTING, "connection_lost"),
}
TO_SCAN: dict[str, Any] = {
    "status": S.QR_REQUIRED,
    "verdict": verdict(Health.DISCONNECTED, S.QR_REQUIRED, "waiting_for_scan"),
}
HELD: dict[str, Any] = {
    "status": S.RECONNECTING,
    "verdict": verdict(Health.DISCONNECTED, S.RECONNECTING, "backend_down"),
}
MEMBER: dict[str, Any] = {"in_incident": True}
STOPPED: dict[str, Any] = {
    "status": S.DISCONNECTED,
    "verdict": verdict(Health.DISCONNECTED, S.DISCONNECTED, "stopped"),
    "desired": Desired(enabled=True, override=Override.STOPPED),
}


def _given_up(reason: str, health: Health, status: S = S.DISCONNECTED) -> World:
    return sessions(status=status, verdict=verdict(health, status, reason))


NOT_SCANNED = _given_up("qr_idle", Health.DISCONNECTED, S.QR_REQUIRED)


def _crypto(t: float, failed: int) -> World:
    return sessions(crypto_operations={"ok": times(t, 30) * 20, "failed": times(t, 30) * failed})


def _uncounted(t: float) -> World:
    """Keys fail on a server that counts no messages: their share is unknown."""
    return sessions(
        counts_messages=False, crypto_operations={}, errors={"crypto": times(t, 10)},
        probes=times(t, 30),
    )  # fmt: skip


def _answers(t: float, seconds: float, **more: Any) -> World:
    count = times(t, 30)
    return sessions(probes=count, probe_seconds=count * seconds, **more)


def _errors(t: float, every: float) -> World:
    count = times(t, 30)
    return sessions(2, probes=count, errors={"connection_lost": times(t, every)})


def _requests(t: float, failed: int, of: int = 20) -> World:
    count = times(t, 30)
    world = machine(requests=count * float(of), requests_failed=count * float(failed))
    return replace(world, routes=30)


def _all_down(t: float) -> World:
    """Nothing answers and no message comes: all that is done are tries that fail."""
    return sessions(2, **LOST, errors={"connection_lost": times(t, 120)})


def _one_of_three_is_down(t: float) -> World:
    well = sessions(2, probes=times(t, 30))
    return both(well, sessions(1, **LOST, errors={"connection_lost": times(t, 60)}))


def _memory(share: float, limit: int = 500 * MIB) -> World:
    return sessions(memory_bytes=int(share * 500 * MIB), memory_limit=limit)


def _growing(t: float, stops_at: float = 1e9) -> World:
    """Measured every five minutes; a megabyte a minute."""
    measured = min(t, stops_at) // 300 * 5
    return sessions(memory_bytes=int((100 + measured) * MIB), memory_limit=500 * MIB)


def _disk(free: float) -> World:
    return machine(disk_available=free * GIB)


def _restarts(t: float, moments: tuple[float, ...]) -> World:
    return machine(started_wall=1_700_000_000.0 + sum(60 for at in moments if t >= at))


def _waiting(oldest_wall: float | None) -> World:
    return machine(of_wings={"webhooks": WebhookFigures(oldest_wall=oldest_wall)})


def _drops(t: float, at: float) -> World:
    """A session drops three messages that were not delivered, at that moment."""
    state = KeptState(newest=90, waiting=20, lost=3 * (t >= at))
    return machine(of_wings={"messages": {InstanceId("s0"): state}})


def _outbox(t: float, oldest: float | None = None, failed: int = 0) -> World:
    """A session of which a message waits since then, and so many have failed."""
    its = SessionOutbox(1, oldest, {State.FAILED: failed})
    return machine(of_wings={"outbox": OutboxFigures({InstanceId("s0"): its})})


def _waits_since(since: float, until: float = math.inf) -> Callable[[float], World]:
    """One event that no webhook takes from then on, and until then."""
    return lambda t: _waiting(since if since <= t < until else None)


def _waits_for(seconds: float) -> Callable[[float], World]:
    """There is always one that waits, and none for longer."""
    return lambda t: _waiting(t - t % seconds)


def _fires(alert: str, title: str, minutes: int, at: Callable[[float], World]) -> Story:
    return Story(alert, title, minutes, at, fires=True)


def _quiet(alert: str, title: str, minutes: int, at: Callable[[float], World]) -> Story:
    return Story(alert, title, minutes, at, fires=False)


STORIES = (
    _fires("WaSessionCorrupted", "corrupted and stays so", 12, always(CORRUPTED)),
    _quiet("WaSessionCorrupted", "repaired in time", 12, until(480, CORRUPTED, WELL)),
    _fires(
        "WaSessionsCorruptedTogether",
        "three at once",
        3,
        always(sessions(3, verdict=verdict(Health.CORRUPTED, S.AUTH_FAILURE))),
    ),
    _quiet(
        "WaSessionsCorruptedTogether",
        "two at once",
        3,
        always(sessions(2, verdict=verdict(Health.CORRUPTED, S.AUTH_FAILURE))),
    ),
    _fires("WaCryptoErrorRateHigh", "a fifth fails", 10, lambda t: _crypto(t, 5)),
    _quiet("WaCryptoErrorRateHigh", "one of twenty fails", 10, lambda t: _crypto(t, 1)),
    _quiet("WaCryptoErrorRateHigh", "no message at all", 10, always(WELL)),
    _quiet("WaCryptoErrorRateHigh", "no message is counted", 10, _uncounted),
    _fires(
        "WaKeyRegenerationFailed",
        "one failed",
        3,
        lambda t: sessions(key_regenerations={"done": 0, "failed": times(t, 1000)}),
    ),
    _quiet(
        "WaKeyRegenerationFailed",
        "one succeeded",
        3,
        lambda t: sessions(key_regenerations={"done": times(t, 1000), "failed": 0}),
    ),
    _fires(
        "WaWatchdogRestarts",
        "every other minute",
        10,
        lambda t: sessions(restarts={"watchdog": times(t, 120)}),
    ),
    _quiet(
        "WaWatchdogRestarts",
        "once, and crashes",
        10,
        lambda t: sessions(restarts={"watchdog": times(t, 9999), "crash": times(t, 60)}),
    ),
    _fires("WaCircuitOpen", "open", 7, always(sessions(circuit="open"))),
    _quiet(
        "WaCircuitOpen",
        "closed by a trial",
        7,
        until(240, sessions(circuit="open"), sessions(circuit="half_open")),
    ),
    _fires("WaSessionDown", "lost and not back", 7, always(sessions(**LOST))),
    _fires("WaSessionDown", "with a reason", 7, always(sessions(**LOST, reason="conflict"))),
    _fires(
        "WaFleetIncident",
        "with a reason",
        1,
        always(
            machine(
                incidents={"evolution/evo": True}, incident_reasons={"evolution/evo": "phase_login"}
            )
        ),
    ),
    _quiet("WaSessionDown", "back after four minutes", 8, until(240, sessions(**LOST), WELL)),
    _quiet("WaSessionDown", "waits for a scan", 8, always(sessions(**TO_SCAN))),
    _quiet("WaSessionDown", "stopped by hand", 8, always(sessions(**STOPPED))),
    _quiet(
        "WaSessionDown",
        "disabled",
        8,
        always(sessions(**{**STOPPED, "desired": Desired(enabled=False)})),
    ),
    _quiet("WaSessionDown", "an incident speaks for it", 8, always(sessions(**LOST, **MEMBER))),
    _fires(
        "WaSessionDown",
        "lost for a reason of its own beside an incident",
        8,
        always(both(sessions(**LOST), sessions(3, **LOST, **MEMBER))),
    ),
    _fires(
        "WaSessionDown",
        "still lost when the incident is over",
        12,
        until(240, sessions(**LOST, **MEMBER), sessions(**LOST)),
    ),
    _quiet(
        "WaCircuitOpen", "an incident speaks for it", 7, always(sessions(circuit="open", **MEMBER))
    ),
    _quiet(
        "WaReconnectStorm",
        "an incident speaks for it",
        12,
        lambda t: sessions(reconnects={"connection_lost": times(t, 30)}, **MEMBER),
    ),
    _quiet(
        "WaSessionResponseSlow",
        "an incident speaks for it",
        10,
        lambda t: _answers(t, 8.0, **MEMBER),
    ),
    _fires("WaSessionNeedsScan", "nobody scans", 7, always(sessions(**TO_SCAN))),
    _quiet("WaSessionNeedsScan", "scanned", 7, until(180, sessions(**TO_SCAN), WELL)),
    _fires(
        "WaSessionGivenUp",
        "attempts used up",
        1,
        always(_given_up("attempts_used_up", Health.DEGRADED)),
    ),
    _fires("WaSessionGivenUp", "banned", 1, always(_given_up("banned", Health.DISCONNECTED))),
    _quiet(
        "WaSessionGivenUp",
        "banned for a time",
        1,
        always(_given_up("temporary_ban", Health.DISCONNECTED)),
    ),
    _quiet("WaSessionGivenUp", "tries go on", 1, always(sessions(**LOST))),
    _quiet("WaSessionGivenUp", "nobody scanned, and no code is shown", 4, always(NOT_SCANNED)),
    _fires("WaSessionNeedsScan", "nobody scanned, and no code is shown", 7, always(NOT_SCANNED)),
    _fires(
        "WaSessionsEndedTogether",
        "three of four banned",
        5,
        until(
            120, both(sessions(3), sessions()), both(sessions(3, errors={"banned": 1}), sessions())
        ),
    ),
    _quiet(
        "WaSessionsEndedTogether",
        "two banned, one lost",
        5,
        until(
            120,
            both(sessions(2), sessions()),
            both(sessions(2, errors={"banned": 1}), sessions(errors={"connection_lost": 1})),
        ),
    ),
    _fires(
        "WaSessionSilent",
        "silent",
        1,
        always(sessions(verdict=verdict(Health.DEGRADED, reason="silent_inbound"))),
    ),
    _quiet(
        "WaSessionSilent",
        "degraded by something else",
        1,
        always(sessions(verdict=verdict(Health.DEGRADED, reason="slow"))),
    ),
    _fires(
        "WaReconnectStorm",
        "each half minute",
        12,
        lambda t: sessions(reconnects={"connection_lost": times(t, 30)}),
    ),
    _quiet(
        "WaReconnectStorm",
        "each third minute",
        12,
        lambda t: sessions(reconnects={"connection_lost": times(t, 180)}),
    ),
    _fires(
        "WaFleetReconnectStorm",
        "four of nine",
        10,
        lambda t: both(sessions(4, reconnects={"connection_lost": times(t, 120)}), sessions(5)),
    ),
    _quiet(
        "WaFleetReconnectStorm",
        "one of ten",
        10,
        lambda t: both(sessions(1, reconnects={"connection_lost": times(t, 120)}), sessions(9)),
    ),
    _quiet(
        "WaFleetReconnectStorm",
        "both of two",
        10,
        lambda t: sessions(2, reconnects={"connection_lost": times(t, 120)}),
    ),
    _quiet(
        "WaFleetReconnectStorm",
        "one outage of all, and each drops once more on its way back",
        20,
        lambda t: sessions(9, reconnects={"connection_lost": min(times(t, 60), 2)}),
    ),
    _fires(
        "WaSessionDown",
        "shows a code and loses it again, every minute",
        16,
        lambda t: sessions(**(TO_SCAN if t // 60 % 2 else LOST)),
    ),
    _fires(
        "WaSessionTemporaryBan",
        "banned for a day",
        1,
        always(sessions(**LOST, reason="temporary_ban")),
    ),
    _quiet("WaSessionTemporaryBan", "lost", 1, always(sessions(**LOST, reason="connection_lost"))),
    _fires(
        "WaSessionClientOutdated",
        "refused",
        1,
        always(sessions(**LOST, reason="client_outdated")),
    ),
    _quiet(
        "WaSessionClientOutdated",
        "an incident speaks for it",
        1,
        always(sessions(**LOST, **MEMBER, reason="client_outdated")),
    ),
    *(
        _fires(name, "a code was scanned", 1, always(sessions(**TO_SCAN, reason=reason)))
        for name, reason in (
            ("WaSessionPasskeyRequired", "passkey_required"),
            ("WaSessionPasskeySuspected", "passkey_suspected"),
        )
    ),
    _quiet("WaSessionPasskeyRequired", "waits for a scan", 1, always(sessions(**TO_SCAN))),
    _quiet("WaSessionPasskeySuspected", "waits for a scan", 1, always(sessions(**TO_SCAN))),
    _quiet("WaDiskFills", "a large copy in the first half hour", 40, lambda t: _disk(30 - t / 200)),
    _quiet("WaSessionDown", "its backend is down", 8, always(on_backend(False, **HELD))),
    _fires("WaSessionDown", "lost on a backend that is up", 8, always(on_backend(True, **LOST))),
    _fires(
        "WaSessionDown",
        "lost here while a backend is down",
        8,
        always(World(sessions(**LOST).views, on_backend(False).figures)),
    ),
    _fires(
        "WaSessionDown",
        "still lost when its backend is back",
        12,
        until(240, on_backend(False, **HELD), on_backend(True, **LOST)),
    ),
    _fires(
        "WaAvailabilityBurns",
        "one of four is down",
        3,
        always(both(sessions(3), sessions(**LOST))),
    ),
    _quiet(
        "WaAvailabilityBurns",
        "one of ten is down",
        3,
        always(both(sessions(9), sessions(**LOST))),
    ),
    _quiet(
        "WaAvailabilityBurns",
        "one of four is stopped by hand",
        3,
        always(both(sessions(3), sessions(**STOPPED))),
    ),
    _fires(
        "WaBackendLogsUnclear",
        "errors name no session",
        2,
        always(machine(backends={"evo": True}, backend_warnings={"evo": True})),
    ),
    _quiet(
        "WaBackendLogsUnclear",
        "its logs tell enough",
        2,
        always(machine(backends={"evo": True}, backend_warnings={"evo": False})),
    ),
    _fires("WaBackendDown", "does not answer", 4, always(on_backend(False, **HELD))),
    _fires("WaBackendDown", "without sessions", 4, always(machine(backends={"evo": False}))),
    _quiet("WaBackendDown", "answers", 4, always(on_backend(True))),
    _quiet(
        "WaBackendDown",
        "back in time",
        6,
        until(90, on_backend(False, **HELD), on_backend(True)),
    ),
    _fires("WaFleetIncident", "goes on", 1, always(machine(incidents={"web": True}))),
    _fires("WaFleetIncident", "over there", 1, always(machine(incidents={"evolution/evo": True}))),
    _quiet("WaFleetIncident", "is over", 1, always(machine(incidents={"web": False}))),
    _fires("WaSessionResponseSlow", "eight seconds", 10, lambda t: _answers(t, 8.0)),
    _quiet("WaSessionResponseSlow", "a tenth", 10, lambda t: _answers(t, 0.1)),
    _quiet("WaSessionResponseSlow", "no answer", 10, always(WELL)),
    _fires("WaErrorRateHigh", "each other check", 12, lambda t: _errors(t, 60)),
    _quiet("WaErrorRateHigh", "now and then", 12, lambda t: _errors(t, 900)),
    _quiet("WaErrorRateHigh", "keys fail where no message is counted", 12, _uncounted),
    _quiet("WaErrorRateHigh", "one of three is down", 12, _one_of_three_is_down),
    _fires("WaErrorRateHigh", "requests fail", 12, lambda t: _requests(t, 5)),
    _quiet("WaErrorRateHigh", "few requests fail", 12, lambda t: _requests(t, 1)),
    _fires("WaErrorRateHigh", "one route after another fails", 12, lambda t: _requests(t, 20, 24)),
    _fires("WaErrorRateHigh", "all are down and nothing answers", 12, _all_down),
    _fires("WaSessionMemoryHigh", "nine tenths", 7, always(_memory(0.9))),
    _quiet("WaSessionMemoryHigh", "freed in time", 7, until(240, _memory(0.9), _memory(0.3))),
    _quiet("WaSessionMemoryHigh", "no limit", 7, always(_memory(0.9, limit=0))),
    _fires("WaSessionMemoryCritical", "nearly all", 3, always(_memory(0.97))),
    _quiet("WaSessionMemoryCritical", "nine tenths", 3, always(_memory(0.9))),
    _fires("WaSessionMemoryLeak", "grows all the time", 75, _growing),
    _quiet("WaSessionMemoryLeak", "came to rest", 75, lambda t: _growing(t, stops_at=900)),
    _fires("WaHostMemoryHigh", "nine tenths", 7, always(machine(memory_used=0.9 * 16 * GIB))),
    _quiet("WaHostMemoryHigh", "half", 7, always(machine(memory_used=8 * GIB))),
    _fires("WaHostMemoryCritical", "nearly all", 3, always(machine(memory_used=0.97 * 16 * GIB))),
    _quiet("WaHostMemoryCritical", "nine tenths", 3, always(machine(memory_used=0.9 * 16 * GIB))),
    _fires("WaHostCpuHigh", "busy", 12, always(machine(cpu_ratio=0.99))),
    _quiet("WaHostCpuHigh", "busy for a while", 12, until(480, machine(cpu_ratio=0.99), machine())),
    _fires("WaDiskSpaceLow", "a twentieth", 7, always(_disk(5))),
    _quiet("WaDiskSpaceLow", "a fifth", 7, always(_disk(20))),
    _fires("WaDiskFills", "ten gigabytes an hour", 75, lambda t: _disk(30 - t / 360)),
    _quiet("WaDiskFills", "one gigabyte an hour", 75, lambda t: _disk(30 - t / 3600)),
    _quiet("WaDiskFills", "hardly used yet", 65, lambda t: _disk(99 - t / 100)),
    _fires("WaFileDescriptorsHigh", "nine tenths", 7, always(machine(open_fds=922))),
    _quiet("WaFileDescriptorsHigh", "few", 7, always(machine(open_fds=100))),
    _fires("WaWebhookBacklog", "one is never taken", 25, _waits_since(120)),
    _quiet("WaWebhookBacklog", "taken in time", 25, _waits_since(120, until=1100)),
    _quiet("WaWebhookBacklog", "each is taken after ten minutes", 45, _waits_for(600)),
    _quiet("WaWebhookBacklog", "none waits", 25, always(machine())),
    _fires("WaMessagesMissing", "three went", 5, lambda t: _drops(t, 120)),
    _quiet("WaMessagesMissing", "three went long ago", 5, lambda t: _drops(t, 0)),
    _fires("WaSessionOutboxOld", "one waits", 25, lambda t: _outbox(t, 60.0)),
    _quiet(
        "WaSessionOutboxOld",
        "each is sent after ten minutes",
        45,
        lambda t: _outbox(t, t - t % 600),
    ),
    _quiet("WaSessionOutboxOld", "none waits", 25, _outbox),
    _fires("WaSessionSendsFail", "ten at once", 5, lambda t: _outbox(t, failed=10 * (t >= 120))),
    _quiet("WaSessionSendsFail", "three", 5, lambda t: _outbox(t, failed=3 * (t >= 120))),
    _quiet("WaSessionSendsFail", "one in ten", 60, lambda t: _outbox(t, failed=int(t // 600))),
    _fires("WaAgentRestarting", "three times", 10, lambda t: _restarts(t, (60, 180, 300))),
    _quiet("WaAgentRestarting", "twice", 10, lambda t: _restarts(t, (60, 300))),
    Story("WaAgentDown", "down", 4, always(World(up=0.0)), True, seen_by_the_agent=False),
    _quiet("WaAgentDown", "up", 4, always(WELL)),
    Story("WaAgentAbsent", "absent", 7, always(World(up=None)), True, seen_by_the_agent=False),
    _quiet("WaAgentAbsent", "there", 7, always(WELL)),
    _fires("WaDeadMansSwitch", "always", 1, always(WELL)),
)
