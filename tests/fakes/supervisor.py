"""A supervisor over memory: the same face, every answer at once, no workers."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from agent.config.config import Config
from agent.core.figures import RepairStatistics
from agent.core.model import (
    UNIT_ABSENT,
    ClaimFact,
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    JournalEntry,
    Override,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.recovery.repair import Goal
from agent.core.session import Run, Session
from agent.core.words import Claim
from agent.deliver.bus import EventBus
from agent.engines.base import Qr
from agent.engines.catalog import remote_engines
from agent.errors import EngineError, NotFound, Refused
from agent.store.rows import KeyRow
from agent.supervise.calls import COMMAND_TIMEOUT
from agent.supervise.facts import Settings
from agent.supervise.gate import Alone, Incidents
from tests.fakes.backends import FakeBackends
from tests.fakes.vault import FakeKeeping, FakeMoving
from tests.sessions import BOOT, Desired, changed

S = ConnectionStatus


@dataclass(frozen=True, slots=True)
class FakeRetired:
    name: str
    path: Path
    at_wall: float


def make_view(id: str, *, status: ConnectionStatus = S.CONNECTED, **more: Any) -> Session:
    now, connected = time.time(), status is S.CONNECTED
    health = Health.HEALTHY if connected else Health.DISCONNECTED
    sentence = "connected and answering" if connected else "waits for a scan"
    view = Session(
        Instance(InstanceId(id), "sandbox", True, {}, now - 100),
        SessionRecord(status, now - 60, paired=connected),
        UnitStatus(UnitState.ACTIVE, "run1", 1234, since=10.0),
        Run(5.0, claim=ClaimFact(Claim(status, proof_age=1.0), 100.0, 5.0)),
        verdict=HealthVerdict(health, status, "", sentence),
        boot=BOOT,
        at=100.0,
        at_wall=now,
        connected_since_wall=now - 60 if connected else None,
    )
    measured = {"memory_bytes": 10_000_000, "cpu_seconds": 1.5, "processes": 1}
    return changed(view, **{**measured, **more})


def result(healthy: bool, cleaned: bool, recovered: bool, *words: str) -> dict[str, Any]:
    names = ("healthy", "cleaned", "recovered", "ending", "sentence")
    return dict(zip(names, (healthy, cleaned, recovered, *words), strict=True))


@dataclass(frozen=True, slots=True)
class FakeSetUp:
    created: bool
    qr: Qr | None
    result: dict[str, Any]
    goes_on: bool = False


class FakeRepairs:
    """Every repair helps at once, and is noted."""

    def __init__(self, house: "FakeSupervisor") -> None:
        self.house = house
        self.asked: list[tuple[str, InstanceId]] = []
        self.result = result(True, False, True, "recovered", "")

    async def until(
        self,
        goal: Goal,
        id: InstanceId,
        *,
        wait: float = 10,
        confirmed: bool = False,
        passkey: str = "",
    ) -> dict[str, Any]:
        if goal is not Goal.CLEANUP:
            return self._note("recover" if goal is Goal.RECOVER else "ensure_healthy", id)
        self.house.must_confirm_passkey(id, "clean up", passkey)
        if self.house.view(id).record.paired and not confirmed:
            raise Refused(f"cannot clean up {id}: it would end a pairing", code="would_unpair")
        self._note("cleanup", id)
        return result(True, True, False, "cleaned", "")

    async def set_up(
        self, wanted: Instance, *, wait: float = 10, confirmed: bool = False, passkey: str = ""
    ) -> FakeSetUp:
        created = wanted.id not in self.house.known
        if created:
            await self.house.create(wanted)
        connected = self.house.view(wanted.id).status is S.CONNECTED
        code = None if connected else self.house.codes[wanted.id]
        return FakeSetUp(created, code, result(True, False, False, "", ""))

    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> dict[InstanceId, HealthVerdict]:
        chosen = list(self.house.known if ids is None else ids)
        self.house.checked += chosen
        return {id: self.house.view(id).verdict for id in chosen}

    async def force_reconnection(self, id: InstanceId) -> None:
        self._note("force", id)

    async def reset_circuit_breaker(self, id: InstanceId) -> None:
        self._note("reset", id)

    def _note(self, what: str, id: InstanceId) -> dict[str, Any]:
        self.house.view(id)
        self.asked.append((what, id))
        self.house.note(id, "repair_over", f"{what}: recovered")
        return self.result


class FakeSupervisor:
    def __init__(self) -> None:
        self.orders = self.asking = self
        self.bus = EventBus(limit=1000)
        self.keeping = FakeKeeping(self)
        self.moving = FakeMoving(self)
        self.repairs = FakeRepairs(self)
        self.settings = Settings(Config())
        self.incidents = Incidents(self.settings, {}, *[Mock()] * 4)
        self.sampler = FakeSampler()
        self.seats = SimpleNamespace(log_path=lambda _id: None)
        self.backends = FakeBackends(self)
        self.known: dict[InstanceId, Session] = {}
        self.journal: list[JournalEntry] = []
        self.retired: list[FakeRetired] = []
        self.sent: list[tuple[InstanceId, dict[str, Any]]] = []
        self.commands: list[tuple[InstanceId, str, dict[str, Any]]] = []
        self.how: dict[str, tuple[float, bool]] = {}
        """Command → the seconds that it might take, and True if it was alone."""
        self.answers: dict[str, Mapping[str, Any] | Exception] | None = None
        """Command → the engine's answer; None: the engine takes every command."""
        self.checked: list[InstanceId] = []
        self.takes_long_to_stop = False
        self.codes: dict[InstanceId, Qr] = {}
        self.codes_asked = 0
        self.gate, self.passing = SimpleNamespace(fleet=Alone()), asyncio.Event()
        """While clear, `send` waits."""
        self.passing.set()
        self.breaks_with: Exception | None = None
        self.registry = SimpleNamespace()
        self.registry.statistics = RepairStatistics(
            checked=4, check_seconds=0.2, repaired=1, repair_seconds=3.0, asked=2, needed_person=1
        )
        self.agent = {
            **{"version": "0.1.0", "host": "process", "started": "2026-01-15T10:00:00.000Z"},
            **{"ready": True, "restoring": {"done": 0, "total": 0}, "alive": True, "passes": 3},
            **{"last_pass_age_seconds": 0.5, "pass_seconds_total": 0.0, "incidents": {}},
            **{"dbus_connected": None, "jobs_pending": 0},
            **{"settings_read": None, "settings_refused": False},
        }

    def views(self) -> Mapping[InstanceId, Session]:
        return self.known

    def view(self, id: InstanceId) -> Session:
        if id not in self.known:
            raise NotFound(f"cannot find the instance {id}: there is none of that name")
        return self.known[id]

    def status(self) -> dict[str, Any]:
        return self.agent

    def note(self, id: InstanceId | None, kind: str, sentence: str) -> JournalEntry:
        entry = JournalEntry(
            kind, sentence, instance=id, wall=time.time(), cursor=len(self.journal) + 1
        )
        self.journal.append(entry)
        self.bus.publish(entry)
        return entry

    async def create(self, instance: Instance) -> Session:
        if instance.id in self.known:
            raise Refused(f"cannot create {instance.id}: it exists", code="exists", field="id")
        if instance.engine in remote_engines():
            self.backends.check_place(instance)
        status = S.QR_REQUIRED if instance.enabled else S.DISCONNECTED
        self.known[instance.id] = make_view(
            instance.id, status=status, instance=instance, desired=Desired(instance.enabled)
        )
        self.codes[instance.id] = Qr("SANDBOX,2@abc", 18.5, 1)
        self.note(instance.id, "created", "created by an operator")
        return self.known[instance.id]

    async def change_settings(self, id: InstanceId, settings: Mapping[str, Any]) -> Session:
        view = self.view(id)
        return self._put(changed(view, instance=replace(view.instance, settings=settings)))

    async def enable(self, id: InstanceId) -> Session:
        return self._want(id, True, Override.NONE)

    async def disable(self, id: InstanceId) -> Session:
        return self._want(id, False, Override.NONE)

    async def start(self, id: InstanceId) -> Session:
        return self._want(id, None, Override.STARTED)

    async def stop(self, id: InstanceId) -> Session:
        return self._want(id, None, Override.STOPPED)

    async def restart(self, id: InstanceId) -> Session:
        return self._want(id, None, Override.NONE)

    def must_confirm_passkey(self, id: InstanceId, doing: str, told: str) -> None:
        if self.view(id).record.needs_passkey and told != id:
            raise Refused(f"cannot {doing} {id}", field="confirm_passkey", code="confirm_passkey")

    async def mark_passkey(self, id: InstanceId, needed: bool) -> Session:
        view = self.view(id)
        return self._put(changed(view, record=replace(view.record, needs_passkey=needed)))

    async def logout(
        self, id: InstanceId, *, confirmed: bool = False, passkey: str = ""
    ) -> Session:
        self.must_confirm_passkey(id, "log out", passkey)
        view = self._put(changed(self.view(id), status=S.QR_REQUIRED, connected_since_wall=None))
        self.note(id, "logout", "logged out by an operator")
        return view

    def _want(self, id: InstanceId, enabled: bool | None, override: Override) -> Session:
        if self.breaks_with is not None:
            raise self.breaks_with
        view = self.view(id)
        if enabled is not None:
            view = changed(view, instance=replace(view.instance, enabled=enabled))
        desired = Desired(view.instance.enabled, override)
        wanted = {Override.NONE: desired.enabled, Override.STARTED: True}.get(override, False)
        keeps = wanted or self.takes_long_to_stop
        unit = view.unit if keeps else UNIT_ABSENT
        self.note(id, "operator", f"now wanted: {desired}")
        return self._put(changed(view, desired=desired, unit=unit))

    def _put(self, view: Session) -> Session:
        self.known[view.instance.id] = view
        return view

    async def delete(self, id: InstanceId, *, passkey: str = "") -> str:
        self.must_confirm_passkey(id, "delete", passkey)
        self.view(id)
        del self.known[id]
        name = f"{id}.20260115T103045Z"
        self.retired.append(FakeRetired(name, Path("/nowhere"), time.time()))
        self.note(id, "deleted", "deleted by an operator")
        return name

    async def trash(self) -> list[FakeRetired]:
        return self.retired

    async def restore_trash(self, name: str) -> Session:
        for row in self.retired:
            if row.name == name:
                self.retired.remove(row)
                return self._put(make_view(name.partition(".")[0], status=S.DISCONNECTED))
        raise NotFound(f"cannot restore {name}: it is not in the trash")

    async def qr(self, id: InstanceId) -> Qr | None:
        self.codes_asked += 1
        return self.codes.get(id)

    async def command(
        self,
        id: InstanceId,
        name: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float = COMMAND_TIMEOUT,
        alone: bool = False,
    ) -> Mapping[str, Any]:
        self.commands.append((id, name, dict(arguments)))
        self.how[name] = (timeout, alone)
        if name == "scan":
            self._put(make_view(id))
        if self.answers is None:
            return {"done": name}
        if name not in self.answers:
            known = ", ".join(self.answers)
            raise EngineError(f"cannot {name!r}: the engine knows {known}", code="invalid_request")
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def send(
        self, id: InstanceId, message: Mapping[str, Any], file: Path | None = None
    ) -> Mapping[str, Any]:
        await self.passing.wait()
        if self.breaks_with is not None:
            raise self.breaks_with
        if file is not None:
            message = {**message, "content": b64encode(file.read_bytes()).decode()}
        self.sent.append((id, dict(message)))
        return {"id": f"M{len(self.sent)}"}

    async def find(
        self, _id: InstanceId, _chat: str, _message_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        return {}

    async def mark_read(
        self, id: InstanceId, chat: str, message_ids: Sequence[str] = (), sender: str = ""
    ) -> int:
        self.commands.append((id, "mark_read", {"chat": chat, "sender": sender}))
        return len(message_ids)

    async def presence(self, id: InstanceId, state: str, chat: str = "", seconds: int = 0) -> None:
        self.commands.append((id, state, {"chat": chat, "seconds": seconds}))

    async def history(
        self,
        instance: InstanceId | None = None,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        kinds: Collection[str] = (),
    ) -> list[JournalEntry]:
        found = [
            entry
            for entry in self.journal
            if (instance is None or entry.instance == instance)
            and (before is None or entry.cursor < before)
            and (after is None or entry.cursor > after)
            and (not kinds or entry.kind in kinds)
        ]
        return found[:limit] if after is not None else found[::-1][:limit]


class FakeSampler:
    """No worker runs, so there is nothing to measure."""

    async def measure_now(self, id: InstanceId) -> None: ...

    def watch(self) -> None: ...


class FakeKeys:
    def __init__(self) -> None:
        self.kept: dict[str, KeyRow] = {}
        self.facts: dict[str, str] = {}

    async def get_fact(self, name: str) -> str | None:
        return self.facts.get(name)

    async def get_facts(self, prefix: str) -> dict[str, str]:
        return {name: text for name, text in self.facts.items() if name.startswith(prefix)}

    async def put_facts(self, changed: Mapping[str, str]) -> None:
        self.facts |= changed

    async def forget_facts(self, names: list[str]) -> None:
        for name in names:
            self.facts.pop(name, None)

    async def note(self, *entries: JournalEntry) -> None:
        """The journal is not kept."""

    async def add_key(self, key: KeyRow) -> None:
        self.kept[key.id] = key

    async def keys(self) -> list[KeyRow]:
        return list(self.kept.values())

    async def check(self) -> str:
        return "ok"

    async def remove_key(self, id: str) -> bool:
        return self.kept.pop(id, None) is not None
