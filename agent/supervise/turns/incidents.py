"""Many instances that fail alike: one incident per engine, one canary, one trouble. The rules are
the core's; this is its clock, its history and its wake-ups."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from agent.clock import boot_now
from agent.core.incidents.book import IncidentBook, Turn, goes_all_the_way, is_well
from agent.core.incidents.incident import (
    Failure,
    Incident,
    IncidentPolicy,
    incident_wait_reason,
    next_turn,
    odd_one_out,
)
from agent.core.model import (
    Category,
    ConnectionStatus,
    HealthVerdict,
    InstanceId,
    JournalEntry,
    UnitState,
)
from agent.core.reasons import reason_of
from agent.core.reconnect import ReconnectPolicy, uncounted
from agent.core.recovery.beginning import hurry_repair
from agent.engines.catalog import entry_of
from agent.log import about
from agent.supervise.facts import Facts

_ALL_WELL = "all its members are well, or are not to run"

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, repr=False)
class Incidents:
    """Hears of each failure and success; asked before each try. `out_of_reach`: its address is
    away, so a try would prove nothing. `wanted`: it should run, so
    it may be a canary."""

    policy: Callable[[], IncidentPolicy]
    all_facts: Mapping[InstanceId, Facts]
    wake: Callable[[InstanceId], None]
    tell: Callable[[JournalEntry], object]
    wanted: Callable[[Facts], bool]
    out_of_reach: Callable[[Facts], bool]
    way_out: Callable[[Facts], str | None]
    """What it goes out by; None = not known, so no other session is known to go out the same."""
    reconnect: Callable[[], ReconnectPolicy]
    _no_turns: set[str] = field(init=False, default_factory=set)
    """Groups none of whose members has an address that can be reached."""
    _released_wall: dict[str, float] = field(init=False, default_factory=dict)
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _book: IncidentBook = field(init=False, default_factory=IncidentBook)

    @property
    def active(self) -> dict[str, Incident]:
        return self._book.active

    async def run(self) -> None:
        """Give canaries their turns when it is time."""
        while True:
            now = boot_now()
            for group in list(self.active):
                self._give_turn(group, now)
            turns = [
                next_turn(incident, self.policy(), boot_now())
                for group, incident in self.active.items()
                if group not in self._no_turns
            ]
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(min(turns) - boot_now(), 0.05) if turns else None):
                    await self._changed.wait()

    def failed(self, facts: Facts, code: str) -> None:
        failure = Failure(facts.id, group_of(facts), code, boot_now())
        if self._book.is_answer(failure):
            self.release(failure.group, f"WhatsApp answered its canary {facts.id} ({code})")
            return
        if self._book.is_free(failure):
            facts.record = uncounted(facts.record, self.reconnect(), time.time())
        all_the_way = goes_all_the_way(facts.repair.last, paired=facts.record.paired)
        declared = self._book.failed(
            failure, self.policy(), self._population, all_the_way=all_the_way
        )
        self._changed.set()
        if declared is not None:
            sentence = f"incident: {declared.sentence}; they wait while one of them tries first"
            self._say("incident", sentence, declared)
            for member in self._of(declared.group):
                self.wake(member.id)

    def succeeded(self, facts: Facts) -> None:
        group = group_of(facts)
        if self._book.succeeded(group, facts.id, boot_now()):
            self.release(group, f"its canary {facts.id} is connected again")

    def nothing_to_try(self, facts: Facts) -> None:
        """The repair has no step left: were this the canary, the others would wait for nothing."""
        if self._book.nothing_to_try(group_of(facts), facts.id, boot_now()):
            self._changed.set()

    def reach_changed(self, sessions: Iterable[Facts], *, back: bool) -> None:
        """The address of these sessions is away or back."""
        self._no_turns.clear()
        groups = {group_of(facts) for facts in sessions} & self.active.keys()
        self._book.reach_changed(groups, self._is_away, boot_now(), back=back)
        self._changed.set()

    def judged(self, facts: Facts, verdict: HealthVerdict) -> None:
        group = group_of(facts)
        if not self.wanted(facts):
            self.forget(facts.id)
        elif self._book.judged(group, facts.id, verdict, boot_now(), self._not_well):
            word = "is connected again" if verdict.healthy else "shows its code"
            canary = facts.id == self.active[group].canary
            self.release(group, f"its canary {facts.id} {word}" if canary else _ALL_WELL)

    def forget(self, id: InstanceId) -> None:
        """The session is disabled, deleted or moved away: no other one waits for its try."""
        self._book.failing.forget(id)
        for group, incident in list(self.active.items()):
            if id in incident.members:
                if self._book.nothing_to_try(group, id, boot_now()):
                    self._changed.set()
                if not self._not_well(incident):
                    self.release(group, _ALL_WELL)

    def wait_reason(self, facts: Facts) -> str:
        """Why this instance must wait for others; "" when it may try."""
        starting = facts.run.claim is None or facts.run.claim.claim.status in (
            ConnectionStatus.INITIALIZING,
            ConnectionStatus.LOADING,
        )
        fresh = facts.unit.state is not UnitState.ACTIVE or starting
        group = group_of(facts)
        unpaired = reason_of(facts.record.reason).unpairs
        incident = self.active.get(group)
        apart = incident is not None and self._goes_apart(facts, incident)
        return incident_wait_reason(
            incident, facts.id, group, fresh=fresh, unpaired=unpaired, apart=apart
        )

    def _goes_apart(self, facts: Facts, incident: Incident) -> bool:
        """Whether it goes out by another way than each of the members does."""
        if facts.id in incident.members:
            return False
        ways = {self.way_out(its) for id in incident.members if (its := self.all_facts.get(id))}
        own = self.way_out(facts)
        return own is not None and None not in ways and own not in ways

    def has(self, facts: Facts) -> bool:
        """Whether it is a member of an incident that goes on."""
        incident = self.active.get(group_of(facts))
        return incident is not None and facts.id in incident.members

    def fellows(self, facts: Facts) -> list[Facts]:
        """The other members of its incident; [] where it is in none."""
        incident = self.active.get(group_of(facts))
        if incident is None or facts.id not in incident.members:
            return []
        return [self.all_facts[id] for id in incident.members if id in self.all_facts]

    def well(self, facts: Facts) -> bool:
        return group_of(facts) not in self.active

    def odd_one_out(self, facts: Facts) -> bool:
        """Among all of its group, and among those that go out the same way."""
        group = group_of(facts)
        failing = self._book.failing.now(group, boot_now())
        beside = {other.id for other in self._beside(facts)}
        alike = {id: code for id, code in failing.items() if id in beside or id == facts.id}
        return all(
            odd_one_out(facts.id, failing, population, self.policy())
            for failing, population in (
                (failing, self._population().get(group, 0)),
                (alike, len(beside) + 1),
            )
        )

    def another_connected(self, facts: Facts) -> bool:
        verdicts = (other.verdict for other in self._beside(facts) if other.verdict is not None)
        return any(verdict.state is ConnectionStatus.CONNECTED for verdict in verdicts)

    def released_wall(self, facts: Facts) -> float:
        """When its turn as a canary began or, without one, when its last incident ended."""
        group = group_of(facts)
        if (turn_at := self._book.turn_at(group, facts.id)) is not None:
            return time.time() - (boot_now() - turn_at)
        return self._released_wall.get(group, 0.0)

    def members(self) -> dict[str, int]:
        """Members of the incident of each engine that is in use."""
        counts = dict.fromkeys(self._population(), 0)
        return counts | {group: len(incident.members) for group, incident in self.active.items()}

    def release(self, group: str, why: str) -> None:
        """The incident is over: its members may try again, in their turns."""
        incident = self._book.release(group)
        if incident is None:
            return
        self._released_wall[group] = time.time()
        self._say("incident_over", f"incident over: {incident.sentence}; {why}", incident)
        for facts in self._of(group):
            self._hurry(facts)

    def _give_turn(self, group: str, now: float) -> None:
        policy, not_well = self.policy(), self._not_well
        match self._book.give_turn(group, policy, now, not_well, self._is_away):
            case Turn.OVER:
                self.release(group, _ALL_WELL)
            case Turn.NO_ADDRESS:
                self._no_turns.add(group)
            case Turn.GIVEN:
                self._send_ahead(self.active[group])

    def _is_away(self, id: InstanceId) -> bool:
        return id in self.all_facts and self.out_of_reach(self.all_facts[id])

    def _not_well(self, incident: Incident) -> list[InstanceId]:
        members = (self.all_facts[id] for id in incident.members if id in self.all_facts)
        return [
            facts.id
            for facts in members
            if self.wanted(facts) and (facts.verdict is None or not is_well(facts.verdict))
        ]

    def _send_ahead(self, incident: Incident) -> None:
        """The canary tries for all: its own delays and rounds may wait no longer."""
        assert incident.canary is not None
        facts = self.all_facts[incident.canary]
        facts.asked.try_at_once = True
        self._say(
            "canary", f"tries first for the members of the incident {incident.code}", incident
        )
        self._hurry(facts)

    def _hurry(self, facts: Facts) -> None:
        if facts.repair.last is not None and not facts.repair.last.over:
            facts.repair.last = hurry_repair(facts.repair.last, paired=facts.record.paired)
        self.wake(facts.id)

    def _say(self, kind: str, sentence: str, incident: Incident) -> None:
        log.warning("%s", sentence, extra=about(incident.canary or "-", Category.HEALTH))
        self.tell(
            JournalEntry(
                kind,
                sentence,
                Category.HEALTH,
                incident.canary if kind == "canary" else None,
                time.time(),
                {"engine": incident.group, "code": incident.code, "kind": incident.kind},
            )
        )

    def _population(self) -> dict[str, int]:
        population: dict[str, int] = {}
        for facts in self.all_facts.values():
            group = group_of(facts)
            population[group] = population.get(group, 0) + 1
        return population

    def _of(self, group: str) -> Iterable[Facts]:
        return (facts for facts in self.all_facts.values() if group_of(facts) == group)

    def _beside(self, facts: Facts) -> Iterable[Facts]:
        """The others of its group that go out the same way. What the rest do proves nothing about
        this way."""
        way = self.way_out(facts)
        if way is None:
            return ()
        others = (other for other in self._of(group_of(facts)) if other is not facts)
        return (other for other in others if self.way_out(other) == way)


def group_of(facts: Facts) -> str:
    """The engine, and for a session on a backend the backend, for a program the program: two
    commands have nothing in common by which one could prove something for the other."""
    engine = facts.instance.engine
    own = facts.instance.settings.get(entry_of(engine).alike_by)
    return f"{engine}/{own}" if isinstance(own, str) and own else engine
