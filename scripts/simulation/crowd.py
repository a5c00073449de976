"""What many sessions share: failures alike are one incident, held until a canary is through."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from agent.core.failing import Failing, goes_all_the_way, is_well
from agent.core.incident import (
    Failure,
    Incident,
    IncidentKind,
    IncidentPolicy,
    canary_failed,
    canary_unreached,
    choose_canary,
    failed_for_all,
    find_incident,
    hold_of,
    join_incident,
    next_turn,
    odd_one_out,
)
from agent.core.model import HealthVerdict, InstanceId
from agent.core.reconnect import ReconnectPolicy, uncounted
from agent.core.recovery.repair import hurry_repair
from scripts.simulation.known import WALL, Known
from scripts.simulation.world import Machine

POLICY = IncidentPolicy()
_WELL = ("connected", "asks")
RECONNECT = ReconnectPolicy()


class Crowd:
    def __init__(
        self,
        machine: Machine,
        known: Mapping[InstanceId, Known],
        look: Callable[[Known, float], None],
        look_later: Callable[[Known, int | None, float], None],
        out_of_reach: Callable[[Known], bool],
    ) -> None:
        self._machine = machine
        self._known = known
        self._look = look
        self._look_later = look_later
        self._out_of_reach = out_of_reach
        self._population = Counter(one.group for one in known.values())
        self._failing = Failing()
        self._failures: deque[Failure] = deque()
        self._successes: dict[str, deque[float]] = {
            group: deque(maxlen=100) for group in self._population
        }
        self._incidents: dict[str, Incident] = {}
        self.released: dict[str, float] = {}
        """When the last incident of a group ended."""

    def judged(self, known: Known, verdict: HealthVerdict, at: float) -> None:
        self._failing.note(known.group, known.instance.id, verdict, at)
        incident = self._incidents.get(known.group)
        if incident is None or known.instance.id not in incident.members or not is_well(verdict):
            return
        if known.instance.id == incident.canary or not self._not_well(incident):
            self._release(known.group, at)

    def _not_well(self, incident: Incident) -> list[InstanceId]:
        return [one for one in incident.members if self._known[one].session.state not in _WELL]

    def well(self, known: Known) -> bool:
        return known.group not in self._incidents

    def odd_one_out(self, known: Known, at: float) -> bool:
        population = self._population[known.group]
        failing = self._failing.now(known.group, at)
        return odd_one_out(known.instance.id, failing, population, POLICY)

    def hold(self, known: Known) -> str:
        fresh = known.session.state in ("off", "starting")
        incident = self._incidents.get(known.group)
        return hold_of(incident, known.instance.id, known.group, fresh=fresh)

    def failed(self, known: Known, code: str, at: float) -> None:
        group = known.group
        failure = Failure(known.instance.id, group, code, at)
        incident = self._incidents.get(group)
        if incident is not None:
            if failed_for_all(incident, failure):
                known.record = uncounted(known.record, RECONNECT, WALL + at)
            incident = join_incident(incident, failure)
            all_the_way = goes_all_the_way(known.repair, paired=known.record.paired)
            if failure.instance == incident.canary and not all_the_way:
                incident = canary_failed(incident, POLICY, at)
            self._incidents[group] = incident
            self._turn_later(group, at)
            return
        self._failures.append(failure)
        while self._failures[0].at < at - POLICY.window:
            self._failures.popleft()
        alike = [one for one in self._failures if one.group == group]
        found = find_incident(alike, self._population, self._successes, POLICY, at)
        if found is not None:
            self._incidents[found.group] = found
            self._turn_later(found.group, at)

    def succeeded(self, known: Known, at: float) -> None:
        incident = self._incidents.get(known.group)
        if incident is None:
            self._successes[known.group].append(at)
        elif incident.canary == known.instance.id:
            self._release(known.group, at)

    def reach_changed(self, sessions: list[Known], back: bool, at: float) -> None:
        for group in {known.group for known in sessions} & self._incidents.keys():
            incident = self._incidents[group]
            canary = incident.canary
            lost = canary is not None and self._out_of_reach(self._known[canary])
            if incident.kind is IncidentKind.OUTAGE and (lost or (back and canary is None)):
                self._incidents[group] = canary_unreached(incident, at)
            self._turn_later(group, at)

    def _turn_later(self, group: str, at: float) -> None:
        when = next_turn(self._incidents[group], POLICY, at)
        self._machine.later(max(when, at + 0.05), partial(self._give_turn, group))

    def _give_turn(self, group: str, at: float) -> None:
        before = self._incidents.get(group)
        if before is None or at < next_turn(before, POLICY, at):
            return
        down = self._not_well(before)
        if not down:
            self._release(group, at)
            return
        able = [one for one in down if not self._out_of_reach(self._known[one])]
        if not able:
            return  # until its address is back
        self._incidents[group] = incident = choose_canary(before, able, POLICY, at)
        self._turn_later(group, at)
        if incident.canary is not None:
            canary = self._known[incident.canary]
            # It tries for all: its own delays and rounds may wait no longer.
            canary.record = replace(canary.record, not_before_wall=0.0)
            if canary.repair is not None and not canary.repair.over:
                canary.repair = hurry_repair(canary.repair)
            self._look(canary, at)

    def _release(self, group: str, at: float) -> None:
        del self._incidents[group]
        self.released[group] = WALL + at
        self._failures = deque(one for one in self._failures if one.group != group)
        for known in self._known.values():
            if known.group == group and known.session.state != "connected":
                if known.repair is not None:
                    known.repair = hurry_repair(known.repair)
                self._look_later(known, None, at + 0.05)
