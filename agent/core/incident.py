"""Many instances that fail alike at once: hold them all, try one, then let them come back.

Two kinds. A change (WhatsApp altered something: the same phase or reason again and again)
freezes starts of that engine. An outage (connections of many lost within moments) keeps the
attempts of all from being spent on a network or backend that is away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.model import InstanceId
from agent.core.reconnect import remaining


class IncidentKind(StrEnum):
    CHANGE = "change"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class IncidentPolicy:
    """The [incident] table. Seconds."""

    window: float = 900.0
    instances: int = 3
    share: float = 0.30
    """So many instances, or such a share of one engine, failing alike."""
    noise: float = 0.01
    """In a large fleet a few always fail alike: less than this share is none."""
    outage_window: float = 60.0
    outage_share: float = 0.30
    canary_first: float = 5.0
    """From the declaration to the first canary's try, then twice as long each time."""
    canary_longest: float = 900.0
    outage_longest: float = 60.0
    canary_time: float = 400.0
    """A canary that has shown nothing by then has failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One instance failed at `at`: with a phase (`phase_login`) or a reason's code."""

    instance: InstanceId
    group: str
    """The engine, or engine and backend: what shares a fate."""
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
    """Who tries, or tries next; None = to be chosen."""
    canary_at: float = 0.0
    """When the canary may try."""
    trying_since: float | None = None
    tries: int = 0

    @property
    def hold(self) -> str:
        """The word for Observation.hold."""
        return "incident" if self.kind is IncidentKind.CHANGE else "network_down"

    @property
    def sentence(self) -> str:
        return f"{self.code} on {len(self.members)} instances of {self.group}"


OUTAGE_CODES = frozenset({"connection_lost", "connection_closed", "service_unavailable"})

# Failures that are each instance's own affair however many there are: waiting for one
# canary would teach nothing about the others.
OWN_AFFAIR = frozenset(
    {
        "",
        "starting",
        "qr_idle",
        "restart_required",
        "conflict",
        "temporary_ban",
        "restricted",
        "session_damaged",
        "session_missing",
        "misconfigured",
        "waiting_for_scan",
        "zombie",
        "proof_old",
    }
)


def find_incident(
    failures: Sequence[Failure],
    population: Mapping[str, int],
    policy: IncidentPolicy,
    now: float,
    *,
    released_at: Mapping[str, float] | None = None,
) -> Incident | None:
    """The worst incident that these failures show. What was before a release is forgotten."""
    groups: dict[tuple[str, str], set[InstanceId]] = {}
    for failure in failures:
        if failure.code in OWN_AFFAIR or not _counts(failure, policy, now, released_at or {}):
            continue
        # Three words for one network that is gone.
        code = "connection_lost" if failure.code in OUTAGE_CODES else failure.code
        groups.setdefault((failure.group, code), set()).add(failure.instance)
    found = [
        Incident(_kind(code), group, code, now, tuple(sorted(members)))
        for (group, code), members in groups.items()
        if len(members) >= _threshold(code, population.get(group, 0), policy)
    ]
    worst = max(found, key=lambda one: (len(one.members), one.group, one.code), default=None)
    return worst and replace(worst, canary_at=now + policy.canary_first)


def join_incident(incident: Incident, failure: Failure) -> Incident:
    """One more of the same: a member, not another alert."""
    if failure.group != incident.group or failure.instance in incident.members:
        return incident
    return replace(incident, members=(*incident.members, failure.instance))


def may_start(incident: Incident | None, instance: InstanceId, group: str, now: float) -> bool:
    """Whether an instance of this group may start, restart or reconnect by itself now."""
    if incident is None or incident.group != group:
        return True
    return instance == incident.canary and now >= incident.canary_at


def choose_canary(
    incident: Incident, willing: Sequence[InstanceId], policy: IncidentPolicy, now: float
) -> Incident:
    """Name who tries next, each time another one; a canary that fell silent has failed."""
    if incident.trying_since is not None:
        if remaining(incident.trying_since + policy.canary_time, now, policy.canary_time) > 0:
            return incident
        incident = canary_failed(incident, policy, now)
    members = [one for one in incident.members if one in set(willing)] or sorted(willing)
    if not members:
        return replace(incident, canary=None)
    return replace(incident, canary=members[incident.tries % len(members)])


def canary_tries(incident: Incident, now: float) -> Incident:
    return replace(incident, trying_since=now, tries=incident.tries + 1)


def canary_failed(incident: Incident, policy: IncidentPolicy, now: float) -> Incident:
    change = incident.kind is IncidentKind.CHANGE
    longest = policy.canary_longest if change else policy.outage_longest
    wait = min(policy.canary_first * 2.0 ** min(incident.tries, 16), longest)
    return replace(incident, trying_since=None, canary=None, canary_at=now + wait)


def _kind(code: str) -> IncidentKind:
    return IncidentKind.OUTAGE if code == "connection_lost" else IncidentKind.CHANGE


def _counts(
    failure: Failure, policy: IncidentPolicy, now: float, released_at: Mapping[str, float]
) -> bool:
    window = policy.outage_window if failure.code in OUTAGE_CODES else policy.window
    in_time = 0 <= now - failure.at < window
    return in_time and failure.at > released_at.get(failure.group, float("-inf"))


def _threshold(code: str, population: int, policy: IncidentPolicy) -> float:
    if _kind(code) is IncidentKind.OUTAGE:
        return max(policy.instances, population * policy.outage_share)
    share = max(2.0, population * policy.share)
    return max(min(policy.instances, share), population * policy.noise)
