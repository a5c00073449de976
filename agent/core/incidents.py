"""Incidents: sessions of one group that fail alike wait, and one of them, the canary, tries first.
Its success ends the incident, and so do as many sessions that connect as have failed. A group is
an engine, or an engine on one backend. A session that has not failed does not wait; it joins when
it fails alike.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent.core import breaker, reasons, words
from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class IncidentPolicy:
    """The [incident] table."""

    window: float = 900.0
    """Seconds within which failures of the same kind are one incident."""
    instances: int = setting(
        3, "instances of one engine that must fail the same way for an incident", low=2
    )
    noise: float = 0.01
    """Share of an engine's instances below which failures are no incident."""
    outage_window: float = 60.0
    """Seconds within which lost connections are one network outage."""
    outage_share: float = 0.3
    """Share of the connections that must be lost for an outage."""
    canary_first: float = setting(
        5.0,
        "seconds until the first canary instance tries; doubles with each canary that fails",
        low=0.1,
    )
    canary_longest: float = 180.0
    """Seconds that the wait for the next canary may reach in an incident."""
    outage_longest: float = 20.0
    """Seconds that the wait for the next canary may reach in a network outage."""
    canary_time: float = 400.0
    """Seconds in which a canary must connect."""
    probe_first: float = 120.0
    probe_longest: float = 900.0
    """Seconds until the first canary, and between two, where WhatsApp refuses the client itself."""


LOST = "connection_lost"
OUTAGE_CODES = frozenset({LOST, "service_unavailable", "unreachable"})
"""Several words for one dead network."""

# Failures of each instance alone, however many there are: a canary would prove nothing about the
# others.
OWN_AFFAIR = {
    *("", "starting", "qr_idle", "passkey_required", "passkey_suspected", "restart_required"),
    *("conflict", "temporary_ban", "restricted", "waiting_for_scan", "zombie", "proof_old"),
    # It stayed connected, or its machine lacks a lease: as a canary it would prove nothing.
    *("crypto_corrupted", "crypto_peer", words.NO_LEASE),
}


@dataclass(slots=True)
class Incident:
    """An incident that goes on."""

    group: str
    code: str
    since: float
    members: list[words.InstanceId]
    canary: words.InstanceId | None = None
    """The member that may try now."""
    turn_at: float = 0.0
    """When the canary got its turn or, without one, when the next may have it."""
    tries: int = 0
    """Canaries so far."""
    idle: set[words.InstanceId] = field(default_factory=set)
    """Members that had nothing to try in their turn."""

    @property
    def is_outage(self) -> bool:
        return self.code == LOST

    @property
    def kind(self) -> str:
        return "outage" if self.is_outage else "change"

    @property
    def wait_reason(self) -> str:
        """The word for Session.wait."""
        return "network_down" if self.is_outage else "incident"

    @property
    def sentence(self) -> str:
        meaning = f" ({reasons.REASONS[self.code].title})" if self.code in reasons.REASONS else ""
        return f"{self.code} on {len(self.members)} instances of {self.group}{meaning}"

    def join(self, id: words.InstanceId, code: str) -> None:
        """Take a session in that fails alike; another one would prove nothing as a canary."""
        if common_code(code) == self.code and id not in self.members:
            self.members.insert(0, id)  # it has had no turn yet

    def next_turn(self, policy: IncidentPolicy, now: float) -> float:
        """When give_turn must be asked again; a clock set back does not delay it."""
        if self.canary is not None:
            most = policy.canary_time
            return now + breaker.remaining(self.turn_at + most, now, most)
        return now + breaker.remaining(self.turn_at, now, max(_pace(self.code, policy)))

    def give_turn(
        self, able: Collection[words.InstanceId], policy: IncidentPolicy, now: float
    ) -> words.InstanceId | None:
        """The member that begins its turn. A canary that fell silent has failed, and where none
        is able to try, all are asked again after the wait for a failed one."""
        able = [id for id in self.members if id in able and id not in self.idle]
        if self.canary is not None or not able:
            self.tries += bool(self.idle)
            self.end_turn(policy, now)
            return None
        self.canary, self.turn_at, self.tries = able[0], now, self.tries + 1
        self.members.remove(able[0])  # it goes to the end, so that each of them has its turn
        self.members.append(able[0])
        return self.canary

    def end_turn(self, policy: IncidentPolicy, now: float) -> None:
        """The canary failed."""
        first, longest = _pace(self.code, policy)
        wait = min(first * 2.0 ** min(self.tries, 16), longest)
        self.canary, self.turn_at = None, now + wait
        self.idle.clear()

    def pass_turn(self, now: float) -> None:
        """The canary's turn proves nothing: the next one's is due now, and no try was made."""
        self.tries -= self.canary is not None
        self.canary, self.turn_at = None, now


def is_shared(code: str) -> bool:
    """True if a try of one session can prove anything for others with this code. A banned or
    logged-out session makes no try, so the others would wait for ever. Processes of this machine
    that ended, or what it lacks, prove nothing about WhatsApp. Many that come up unpaired may be a
    page that changed.
    """
    if code in OWN_AFFAIR:
        return False
    if code == words.SUSPECT:
        return True
    row = reasons.REASONS.get(code)
    return row is None or not (row.hopeless or row.unpairs or row.local)


def common_code(code: str) -> str:
    return LOST if code in OUTAGE_CODES else code


def find_incident(
    group: str,
    failures: Mapping[words.InstanceId, Mapping[str, float]],
    successes: Mapping[words.InstanceId, float],
    policy: IncidentPolicy,
    now: float,
) -> Incident | None:
    """The largest incident that the failures of a group show: more of its instances failed since
    some moment than connected. For each instance, when it last failed with a phase (`phase_login`)
    or a reason's code, and when it last connected (-inf: never)."""
    alike: dict[str, dict[words.InstanceId, float]] = {}
    well = sorted(successes.values())
    for id, last in failures.items():
        for code, at in last.items():
            window = policy.outage_window if code in OUTAGE_CODES else policy.window
            if is_shared(code) and at > successes[id] and 0 <= now - at < window:
                alike.setdefault(common_code(code), {})[id] = at
    for code, members in sorted(alike.items(), key=lambda its: len(its[1]), reverse=True):
        share = policy.outage_share if code == LOST else policy.noise
        least = max(policy.instances, len(successes) * share)
        in_order = sorted(members, key=members.__getitem__)
        for number, id in enumerate(in_order):
            failed = len(in_order) - number
            if failed >= least and failed > len(well) - bisect_left(well, members[id]):
                due = now + _pace(code, policy)[0]
                return Incident(group, code, now, sorted(in_order[number:]), turn_at=due)
    return None


def _pace(code: str, policy: IncidentPolicy) -> tuple[float, float]:
    """Seconds to the first canary's try, and at most from one to the next."""
    if code in reasons.REASONS and reasons.REASONS[code].slow:
        return policy.probe_first, policy.probe_longest
    longest = policy.outage_longest if code == LOST else policy.canary_longest
    return policy.canary_first, longest
