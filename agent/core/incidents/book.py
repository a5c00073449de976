"""Failures and incidents by group (an engine, or an engine on one backend). A repair learns from it
whether its case is the only one."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum

from agent.core.incidents.incident import (
    Failure,
    Incident,
    IncidentKind,
    IncidentPolicy,
    canary_failed,
    canary_unreached,
    choose_canary,
    ends_outage,
    failed_for_all,
    find_incident,
    join_incident,
    next_turn,
)
from agent.core.model import ConnectionStatus, HealthVerdict, InstanceId
from agent.core.recovery.beginning import needs_repair
from agent.core.recovery.repair import RecoveryKind, Repair
from agent.core.waiting import WAIT_SENTENCES
from agent.core.words import NO_PROOF, UNMEASURED

STALE = 900.0
"""A failure that was not seen again for so long proves nothing about others."""

_ON_ITS_WAY = frozenset(
    {"starting", "stopping", "not_running", "ping_failed", NO_PROOF, UNMEASURED, *WAIT_SENTENCES}
)
"""Between two tries: the failure before still counts for a while."""


def is_well(verdict: HealthVerdict) -> bool:
    """Connected, or it shows its code: its group counts it as recovered."""
    return verdict.healthy or verdict.state is ConnectionStatus.QR_REQUIRED


def goes_all_the_way(repair: Repair | None, *, paired: bool) -> bool:
    """A canary without a pairing to lose has not failed before its repair has renewed it."""
    if repair is None or repair.over or paired:
        return False
    return repair.step is not RecoveryKind.CLEANUP


class Failing:
    """The failing instances of each group, their reasons and times."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[InstanceId, tuple[str, float]]] = {}

    def note(self, group: str, id: InstanceId, verdict: HealthVerdict, now: float) -> None:
        seen = self._seen.setdefault(group, {})
        if needs_repair(verdict):
            seen[id] = (verdict.reason, now)
        elif verdict.reason not in _ON_ITS_WAY:
            seen.pop(id, None)

    def forget(self, id: InstanceId) -> None:
        for seen in self._seen.values():
            seen.pop(id, None)

    def now(self, group: str, now: float) -> Mapping[InstanceId, str]:
        seen = self._seen.get(group, {})
        return {id: reason for id, (reason, at) in seen.items() if now - at < STALE}


class Turn(StrEnum):
    """What happened to an incident when a canary's turn was due."""

    NOT_DUE = "not_due"
    OVER = "over"
    """All its members are well."""
    NO_ADDRESS = "no_address"
    """No member has an address that can be reached: no turn before one is back."""
    FAILED = "failed"
    """The canary showed nothing in its time; the next one waits."""
    GIVEN = "given"


class IncidentBook:
    """What failed, what connected, and the incidents that go on."""

    def __init__(self) -> None:
        self.active: dict[str, Incident] = {}
        self.failing = Failing()
        self._failures: deque[Failure] = deque()
        self._successes: dict[str, deque[float]] = {}
        self._idle: dict[str, set[InstanceId]] = {}
        """Members of each incident that had nothing to try in their turn."""

    def is_free(self, failure: Failure) -> bool:
        """Whether it costs the canary no attempt: it met what the others did."""
        incident = self.active.get(failure.group)
        return incident is not None and failed_for_all(incident, failure)

    def is_answer(self, failure: Failure) -> bool:
        """Whether WhatsApp answered the canary of an outage."""
        incident = self.active.get(failure.group)
        return incident is not None and ends_outage(incident, failure)

    def failed(
        self,
        failure: Failure,
        policy: IncidentPolicy,
        population: Callable[[], Mapping[str, int]],
        *,
        all_the_way: bool,
    ) -> Incident | None:
        """The incident that it declares. `all_the_way`: its repair has a step left to try."""
        if (incident := self.active.get(failure.group)) is not None:
            incident = join_incident(incident, failure)
            if failure.instance == incident.canary and not all_the_way:
                incident = canary_failed(incident, policy, failure.at)
                self._idle.pop(failure.group, None)  # by then they may have something to try
            self.active[failure.group] = incident
            return None
        self._failures.append(failure)
        while self._failures[0].at < failure.at - policy.window:
            self._failures.popleft()
        # Of this group alone: the worst incident of all groups may be declared already.
        alike = [earlier for earlier in self._failures if earlier.group == failure.group]
        declared = find_incident(alike, population(), self._successes, policy, failure.at)
        if declared is not None:
            self.active[declared.group] = declared
        return declared

    def succeeded(self, group: str, id: InstanceId, now: float) -> bool:
        """Whether the canary succeeded."""
        incident = self.active.get(group)
        if incident is None:
            self._successes.setdefault(group, deque(maxlen=100)).append(now)
        return incident is not None and incident.canary == id

    def judged(
        self,
        group: str,
        id: InstanceId,
        verdict: HealthVerdict,
        now: float,
        not_well: Callable[[Incident], Collection[InstanceId]],
    ) -> bool:
        """Whether the incident is over: its canary is well, or all its members are."""
        self.failing.note(group, id, verdict, now)
        incident = self.active.get(group)
        if incident is None or id not in incident.members or not is_well(verdict):
            return False
        return id == incident.canary or not not_well(incident)

    def reach_changed(
        self,
        groups: Iterable[str],
        out_of_reach: Callable[[InstanceId], bool],
        now: float,
        *,
        back: bool,
    ) -> None:
        """Their address is away or back: a canary goes as soon as its try can prove something."""
        for group in groups:
            incident = self.active[group]
            canary = incident.canary
            lost = canary is not None and out_of_reach(canary)
            if incident.kind is IncidentKind.OUTAGE and (lost or (back and canary is None)):
                self.active[group] = canary_unreached(incident, now)

    def nothing_to_try(self, group: str, id: InstanceId, now: float) -> bool:
        """Whether it was the canary: its turn is over, and the next one's is due now."""
        incident = self.active.get(group)
        if incident is None or incident.canary != id:
            return False
        self._idle.setdefault(group, set()).add(id)
        self.active[group] = replace(incident, canary=None, canary_at=now)
        return True

    def give_turn(
        self,
        group: str,
        policy: IncidentPolicy,
        now: float,
        not_well: Callable[[Incident], Collection[InstanceId]],
        out_of_reach: Callable[[InstanceId], bool],
    ) -> Turn:
        """Choose a canary when it is time."""
        before = self.active[group]
        if now < next_turn(before, policy, now):
            return Turn.NOT_DUE
        if not (down := not_well(before)):
            return Turn.OVER
        if not (able := [id for id in down if not out_of_reach(id)]):
            return Turn.NO_ADDRESS
        idle = self._idle.get(group, set())
        if before.canary is None and idle.issuperset(able):
            # None of them had anything to try: all are asked again after the wait for a failed one.
            idle.clear()
            self.active[group] = canary_failed(before, policy, now)
            return Turn.FAILED
        able = [id for id in able if id not in idle]
        self.active[group] = incident = choose_canary(before, able, policy, now)
        if incident.canary is None:
            idle.clear()
        given = incident.canary is not None and incident.canary != before.canary
        return Turn.GIVEN if given else Turn.FAILED

    def turn_at(self, group: str, id: InstanceId) -> float | None:
        """When its turn as the canary began; None = it has none."""
        incident = self.active.get(group)
        return incident.canary_at if incident is not None and incident.canary == id else None

    def release(self, group: str) -> Incident | None:
        """It is over: earlier failures prove nothing any more."""
        incident = self.active.pop(group, None)
        self._idle.pop(group, None)
        self._failures = deque(failure for failure in self._failures if failure.group != group)
        return incident
