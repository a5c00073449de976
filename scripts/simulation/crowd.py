"""What many sessions share: failures alike are one incident, held until a canary is through."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from agent.core.incidents.book import IncidentBook, Turn, goes_all_the_way
from agent.core.incidents.incident import (
    Failure,
    Incident,
    IncidentPolicy,
    incident_wait_reason,
    next_turn,
    odd_one_out,
)
from agent.core.model import HealthVerdict, InstanceId
from agent.core.reconnect import ReconnectPolicy, uncounted
from agent.core.recovery.beginning import hurry_repair
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
        self._book = IncidentBook()
        self._released: dict[str, float] = {}
        """When the last incident of a group ended."""

    def judged(self, known: Known, verdict: HealthVerdict, at: float) -> None:
        if self._book.judged(known.group, known.instance.id, verdict, at, self._not_well):
            self._release(known.group, at)

    def _not_well(self, incident: Incident) -> list[InstanceId]:
        return [one for one in incident.members if self._known[one].session.state not in _WELL]

    def well(self, known: Known) -> bool:
        return known.group not in self._book.active

    def odd_one_out(self, known: Known, at: float) -> bool:
        population = self._population[known.group]
        failing = self._book.failing.now(known.group, at)
        return odd_one_out(known.instance.id, failing, population, POLICY)

    def another_connected(self, known: Known) -> bool:
        others = (one for one in self._known.values() if one.group == known.group)
        return any(one.session.state == "connected" for one in others if one is not known)

    def released_wall(self, known: Known) -> float:
        turn_at = self._book.turn_at(known.group, known.instance.id)
        return self._released.get(known.group, 0.0) if turn_at is None else WALL + turn_at

    def wait_reason(self, known: Known) -> str:
        fresh = known.session.state in ("off", "starting")
        incident = self._book.active.get(known.group)
        return incident_wait_reason(incident, known.instance.id, known.group, fresh=fresh)

    def failed(self, known: Known, code: str, at: float) -> None:
        failure = Failure(known.instance.id, known.group, code, at)
        if self._book.is_free(failure):
            known.record = uncounted(known.record, RECONNECT, WALL + at)
        all_the_way = goes_all_the_way(known.repair, paired=known.record.paired)
        self._book.failed(failure, POLICY, lambda: self._population, all_the_way=all_the_way)
        if known.group in self._book.active:
            self._turn_later(known.group, at)

    def nothing_to_try(self, known: Known, at: float) -> None:
        if self._book.nothing_to_try(known.group, known.instance.id, at):
            self._turn_later(known.group, at)

    def succeeded(self, known: Known, at: float) -> None:
        if self._book.succeeded(known.group, known.instance.id, at):
            self._release(known.group, at)

    def reach_changed(self, sessions: list[Known], back: bool, at: float) -> None:
        groups = {known.group for known in sessions} & self._book.active.keys()
        self._book.reach_changed(groups, self._is_away, at, back=back)
        for group in groups:
            self._turn_later(group, at)

    def _is_away(self, id: InstanceId) -> bool:
        return self._out_of_reach(self._known[id])

    def _turn_later(self, group: str, at: float) -> None:
        when = next_turn(self._book.active[group], POLICY, at)
        self._machine.later(max(when, at + 0.05), partial(self._give_turn, group))

    def _give_turn(self, group: str, at: float) -> None:
        if group not in self._book.active:
            return
        turn = self._book.give_turn(group, POLICY, at, self._not_well, self._is_away)
        if turn is Turn.OVER:
            self._release(group, at)
        elif turn in (Turn.GIVEN, Turn.FAILED):
            self._turn_later(group, at)
        if turn is Turn.GIVEN:
            canary = self._known[self._book.active[group].canary or InstanceId("")]
            # It tries for all: its own delays and rounds may wait no longer.
            canary.record = replace(canary.record, not_before_wall=0.0)
            if canary.repair is not None and not canary.repair.over:
                canary.repair = hurry_repair(canary.repair, paired=canary.record.paired)
            self._look(canary, at)

    def _release(self, group: str, at: float) -> None:
        self._book.release(group)
        self._released[group] = WALL + at
        for known in self._known.values():
            if known.group == group and known.session.state != "connected":
                if known.repair is not None:
                    known.repair = hurry_repair(known.repair, paired=known.record.paired)
                self._look_later(known, None, at + 0.05)
