"""Many instances that fail alike at once: all wait, one tries, then the others come back.

A change (WhatsApp altered something: the same phase or reason in many) stops starts of that engine.
An outage (many connections lost at once) keeps attempts from being spent on a dead network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.breaker import remaining
from agent.core.model import InstanceId
from agent.core.network.reach import REACHED_CODES
from agent.core.reasons import REASONS
from agent.core.setting import setting
from agent.core.words import SUSPECT


class IncidentKind(StrEnum):
    CHANGE = "change"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class IncidentPolicy:
    """The [incident] table."""

    window: float = 900.0
    """Seconds within which failures of the same kind are one incident."""
    instances: int = setting(
        3, "instances of one engine that must fail the same way for an incident", low=2
    )
    share: float = 0.3
    """Share of an engine's instances that is enough for an incident as well."""
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


@dataclass(frozen=True, slots=True)
class Failure:
    """One instance failed at `at`: with a phase (`phase_login`) or a reason's code."""

    instance: InstanceId
    group: str
    """The engine, or engine and backend."""
    code: str
    at: float


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that goes on."""

    kind: IncidentKind
    group: str
    code: str
    since: float
    members: tuple[InstanceId, ...]
    canary: InstanceId | None = None
    """The canary: the member that may try now."""
    canary_at: float = 0.0
    """When the canary got its turn or, without one, when the next may have it."""
    tries: int = 0
    """Canaries so far."""

    @property
    def wait_reason(self) -> str:
        """The word for Observation.wait_reason."""
        return "incident" if self.kind is IncidentKind.CHANGE else "network_down"

    @property
    def sentence(self) -> str:
        meaning = f" ({REASONS[self.code].title})" if self.code in REASONS else ""
        return f"{self.code} on {len(self.members)} instances of {self.group}{meaning}"


OUTAGE_CODES = frozenset(
    {"connection_lost", "connection_closed", "service_unavailable", "unreachable"}
)

# Failures of each instance alone, however many there are: a canary would prove nothing about the
# others.
OWN_AFFAIR = {
    *("", "starting", "qr_idle", "passkey_required", "passkey_suspected", "restart_required"),
    *("conflict", "temporary_ban", "restricted", "waiting_for_scan", "zombie", "proof_old"),
    # It stayed connected: as a canary its connecting would prove nothing.
    *("crypto_corrupted", "crypto_peer"),
}


def is_shared(code: str) -> bool:
    """Whether the try of one session could prove anything for others that fail so. A banned or
    logged-out session makes no try, so the others would wait for ever. Processes of this machine
    that ended, or what it lacks, prove nothing about WhatsApp. Many that come up unpaired may be a
    page that changed.
    """
    if code in OWN_AFFAIR:
        return False
    if code == SUSPECT:
        return True
    row = REASONS.get(code)
    return row is None or not (row.hopeless or row.unpairs or row.local)


def find_incident(
    failures: Sequence[Failure],
    population: Mapping[str, int],
    successes: Mapping[str, Sequence[float]],
    policy: IncidentPolicy,
    now: float,
) -> Incident | None:
    """The worst incident that these failures show.

    `successes`: when instances of each group last connected. As many of them as of failures since
    the first failure clear the engine; leave out those from before a release.
    """
    groups: dict[tuple[str, str], dict[InstanceId, float]] = {}
    for failure in failures:
        if not is_shared(failure.code) or not _in_time(failure, policy, now):
            continue
        key = (failure.group, _shared(failure.code))
        groups.setdefault(key, {}).setdefault(failure.instance, failure.at)
    incidents = [
        Incident(_kind(code), group, code, now, tuple(sorted(members)))
        for (group, code), members in groups.items()
        if len(members) >= _threshold(code, population.get(group, 0), policy)
        and len(members) > _count_since(successes.get(group, ()), min(members.values()), now)
    ]
    worst = max(
        incidents,
        key=lambda incident: (len(incident.members), incident.group, incident.code),
        default=None,
    )
    return worst and replace(worst, canary_at=now + _pace(worst, policy)[0])


def odd_one_out(
    instance: InstanceId, failing: Mapping[InstanceId, str], population: int, policy: IncidentPolicy
) -> bool:
    """Whether no other instance of its engine fails as this one does. `failing`: each failing
    instance of the engine with its phase or reason."""
    code = failing.get(instance, "")
    alike = sum(other == code for id, other in failing.items() if id != instance)
    return alike <= population * policy.noise


def join_incident(incident: Incident, failure: Failure) -> Incident:
    """A further member. An instance that fails otherwise is none: as a canary it would prove
    nothing."""
    alike = (failure.group, _shared(failure.code)) == (incident.group, incident.code)
    if not alike or failure.instance in incident.members:
        return incident
    return replace(incident, members=(*incident.members, failure.instance))


def incident_wait_reason(
    incident: Incident | None,
    instance: InstanceId,
    group: str,
    *,
    fresh: bool,
    unpaired: bool = False,
    apart: bool = False,
) -> str:
    """The word for Observation.wait_reason; "" when this instance may try by itself. `fresh`: it
    would need a new worker. `unpaired`: WhatsApp itself ended its pairing. `apart`: it goes out by
    another way than each of the members, whose failures say nothing about it then. In an incident
    new workers and the members wait, in an outage all but those that lost no network."""
    if incident is None or incident.group != group or instance == incident.canary:
        return ""
    if incident.kind is IncidentKind.OUTAGE:
        return "" if unpaired else incident.wait_reason
    waits = instance in incident.members or (fresh and not apart)
    return incident.wait_reason if waits else ""


def choose_canary(
    incident: Incident, willing: Sequence[InstanceId], policy: IncidentPolicy, now: float
) -> Incident:
    """Give another member its turn when it is time; a canary that fell silent has failed. Ask again
    at the latest when `next_turn` says."""
    if now < next_turn(incident, policy, now):
        return incident
    if incident.canary is not None:
        return canary_failed(incident, policy, now)
    able = set(willing)
    members = [member for member in incident.members if member in able] or sorted(able)
    if not members:
        return incident
    canary = members[0]  # it goes to the end, so that each of them has its turn
    order = (*(it for it in incident.members if it != canary), canary)
    tries = incident.tries + 1
    return replace(incident, canary=canary, canary_at=now, tries=tries, members=order)


def failed_for_all(incident: Incident, failure: Failure) -> bool:
    """Whether the canary met the common failure: then the try costs it no attempt."""
    alike = (failure.group, _shared(failure.code)) == (incident.group, incident.code)
    return alike and failure.instance == incident.canary


def ends_outage(incident: Incident, failure: Failure) -> bool:
    """Whether WhatsApp itself answered the canary, with whatever word: the network is there."""
    answered = failure.instance == incident.canary and failure.code in REACHED_CODES
    return answered and incident.kind is IncidentKind.OUTAGE


def canary_unreached(incident: Incident, now: float) -> Incident:
    """Its address is away, or back: the turn proves nothing yet, and the next is due now."""
    tries = max(incident.tries - (incident.canary is not None), 0)
    return replace(incident, canary=None, canary_at=now, tries=tries)


def next_turn(incident: Incident, policy: IncidentPolicy, now: float) -> float:
    """When choose_canary must be asked again; a clock set back does not delay it."""
    if incident.canary is not None:
        return now + remaining(incident.canary_at + policy.canary_time, now, policy.canary_time)
    longest = max(_pace(incident, policy)[1], policy.outage_longest)
    return now + remaining(incident.canary_at, now, longest)


def canary_failed(incident: Incident, policy: IncidentPolicy, now: float) -> Incident:
    first, longest = _pace(incident, policy)
    wait = min(first * 2.0 ** min(incident.tries, 16), longest)
    return replace(incident, canary=None, canary_at=now + wait)


def _pace(incident: Incident, policy: IncidentPolicy) -> tuple[float, float]:
    """Seconds to the first canary's try, and at most from one to the next."""
    row = REASONS.get(incident.code)
    if row is not None and row.slow:
        return policy.probe_first, policy.probe_longest
    change = incident.kind is IncidentKind.CHANGE
    return policy.canary_first, policy.canary_longest if change else policy.outage_longest


def _shared(code: str) -> str:
    """Several words for one dead network as one."""
    return "connection_lost" if code in OUTAGE_CODES else code


def _kind(code: str) -> IncidentKind:
    return IncidentKind.OUTAGE if code == "connection_lost" else IncidentKind.CHANGE


def _in_time(failure: Failure, policy: IncidentPolicy, now: float) -> bool:
    window = policy.outage_window if failure.code in OUTAGE_CODES else policy.window
    return 0 <= now - failure.at < window


def _count_since(moments: Sequence[float], first: float, now: float) -> int:
    return sum(first <= at <= now for at in moments)


def _threshold(code: str, population: int, policy: IncidentPolicy) -> float:
    if _kind(code) is IncidentKind.OUTAGE:
        return max(policy.instances, population * policy.outage_share)
    share = max(2.0, population * policy.share)
    return max(min(policy.instances, share), population * policy.noise)
