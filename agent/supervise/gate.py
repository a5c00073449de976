"""The gate before each login says why a session must wait, in one order and one set of words, and
when to ask again.

The order: its twin on this machine, the lease in a fleet, the session's server, its address, its
incident, room on this machine, a turn in the queue with the budget of logins, a good look at
address and server, the trial of the server's circuit. Who asked first goes first, also before a
person's `start`; only a restart that a person orders waits for no turn.

The incidents that hold sessions stand here as well, before the gate that asks them.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent import errors, log
from agent.backends.declared import Backends
from agent.clock import boot_now, until_next
from agent.core import admission, memory, reasons, reconcile, reconnect, words
from agent.core.model import Category, ConnectionStatus, HealthVerdict, InstanceId, JournalEntry
from agent.core.recovery import ladder, repair
from agent.core.session import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES, WAITS_TURN, Wait
from agent.engines.catalog import entry_of
from agent.supervise.facts import NEVER, NOT_FAILING, Facts, Notes, Settings
from agent.supervise.reach import Reaching

# Many sessions that fail alike: one incident per engine, one canary, one trouble. The rules are the
# core's; this is its clock, its history and its wake-ups.

STALE = 900.0
"""Seconds after which a failure that was not seen again proves nothing about others."""
_BETWEEN = {"starting", "stopping", "not_running", "ping_failed", words.NO_PROOF, words.UNMEASURED}
_BETWEEN |= WAIT_SENTENCES.keys()
"""Reasons between two tries: the failure before still counts for a while."""


@dataclass(slots=True, eq=False, repr=False)
class Incidents:
    """Hears of each failure and success; asked before each try. A session that should not run, or
    whose address is away, is no canary: its try would prove nothing."""

    settings: Settings
    all_facts: Mapping[InstanceId, Facts]
    wake: Callable[[InstanceId], None]
    notes: Notes
    reaching: Reaching
    backends: Backends
    active: dict[str, admission.Incident] = field(init=False, default_factory=dict)
    _released: dict[str, float] = field(init=False, default_factory=dict)
    """Group → Unix time of the end of its last incident."""

    @property
    def policy(self) -> admission.IncidentPolicy:
        return self.settings.config.incident

    async def run(self) -> None:
        """Give canaries their turns when it is time."""
        while True:
            for incident in list(self.active.values()):
                self.give_turn(incident, boot_now())
            await asyncio.sleep(until_next(1.0 if self.active else 4.0))

    def give_turn(self, incident: admission.Incident, now: float) -> None:
        """Choose a canary when it is time: it tries for all, and its own delays and rounds wait no
        longer."""
        if self._end_if_well(incident):
            return
        able = [each.id for each in self._not_well(incident) if not self.reaching.of(each).away]
        holder = self.all_facts.get(incident.canary) if incident.canary else None
        if incident.is_outage and (self.reaching.of(holder).away if holder else not able):
            incident.pass_turn(now)  # its try would prove nothing: due once an address is back
            return
        if now < incident.next_turn(self.policy, now):
            return
        if (canary := incident.give_turn(able, self.policy, now)) is not None:
            facts = self.all_facts[canary]
            facts.asked.try_at_once = True
            sentence = f"tries first for the members of the incident {incident.code}"
            self._say("canary", sentence, incident)
            self._hurry(facts)

    def failed(self, facts: Facts, code: str) -> None:
        group, now = group_of(facts), boot_now()
        if (incident := self.active.get(group)) is not None:
            incident.join(facts.id, code)
            if incident.canary == facts.id:
                self._canary_failed(incident, facts, code, now)
        elif admission.is_shared(code):
            facts.failures.pop(code, None)
            facts.failures[code] = now  # the newest is the last
            failures = {it.id: it.failures for it in self._of(group)}
            successes = {it.id: it.succeeded_at for it in self._of(group)}
            found = admission.find_incident(group, failures, successes, self.policy, now)
            if found is not None:
                self.active[group] = found
                said = f"incident: {found.sentence}; they wait while one of them tries first"
                self._say("incident", said, found)
                for id in found.members:
                    self.wake(id)

    def _canary_failed(
        self, incident: admission.Incident, facts: Facts, code: str, now: float
    ) -> None:
        if incident.is_outage and code in reasons.REACHED_CODES:
            self.release(incident.group, f"WhatsApp answered its canary {facts.id} ({code})")
            return
        # A failure that the others had as well costs the canary no attempt.
        if admission.common_code(code) == incident.code:
            rules = self.settings.config.reconnect
            facts.record = reconnect.uncounted(facts.record, rules, time.time())
        # Without a pairing to lose it has not failed before its repair has renewed it.
        goes_on = facts.repairing and facts.repairing.step is not repair.RecoveryKind.CLEANUP
        if facts.record.paired or not goes_on:
            incident.end_turn(self.policy, now)

    def succeeded(self, facts: Facts) -> None:
        group, now = group_of(facts), boot_now()
        facts.succeeded_at = now
        if (incident := self.active.get(group)) is None:
            return
        back = sum(incident.since <= it.succeeded_at for it in self._of(group))
        if incident.canary == facts.id:
            self.release(group, f"its canary {facts.id} is connected again")
        elif back >= len(incident.members):
            self.release(group, "as many sessions connected meanwhile")

    def judged(self, facts: Facts, verdict: HealthVerdict) -> None:
        if not facts.should_run:
            facts.failing, facts.succeeded_at = NOT_FAILING, NEVER
            self.pass_turn(facts.id)
            return
        if ladder.needs_repair(verdict):
            facts.failing = verdict.reason, boot_now()
        elif verdict.reason not in _BETWEEN:
            facts.failing = NOT_FAILING
        if (incident := self.incident_of(facts)) is not None and is_well(verdict):
            word = "is connected again" if verdict.healthy else "shows its code"
            if facts.id == incident.canary:
                self.release(incident.group, f"its canary {facts.id} {word}")
            else:
                self._end_if_well(incident)

    def pass_turn(self, id: InstanceId) -> None:
        """The session is disabled, deleted or moved away, or its repair has no step left: no other
        one waits for its try."""
        for incident in list(self.active.values()):
            if id in incident.members:
                if incident.canary == id:
                    incident.idle.add(id)
                    incident.pass_turn(boot_now())
                self._end_if_well(incident)

    def wait_reason(self, facts: Facts) -> str:
        """Why this session must wait for others; "" when it may try. WhatsApp itself has ended a
        session that is unpaired, and one that lost its pairing fails otherwise."""
        if (incident := self.incident_of(facts)) is None or facts.id == incident.canary:
            return ""
        lost = facts.verdict.reason == words.SUSPECT and incident.code != words.SUSPECT
        return "" if lost or facts.ended_by.unpairs else incident.wait_reason

    def incident_of(self, facts: Facts) -> admission.Incident | None:
        """Return the open incident that has the session as a member."""
        incident = self.active.get(group_of(facts)) if self.active else None
        return incident if incident is not None and facts.id in incident.members else None

    def well(self, facts: Facts) -> bool:
        return group_of(facts) not in self.active

    def odd_one_out(self, facts: Facts) -> bool:
        """No other instance of its group fails as this one does, nor of those that go out the same
        way."""
        since, noise, members = boot_now() - STALE, self.policy.noise, self._of(group_of(facts))
        failing = {it.id: it.failing[0] for it in members if it.failing[1] > since}
        code = failing.pop(facts.id, "")
        alike = {id for id, other in failing.items() if other == code}
        beside = {other.id for other in self._beside(facts)}
        among_all = len(alike) <= len(members) * noise
        return among_all and len(alike & beside) <= (len(beside) + 1) * noise

    def another_connected(self, facts: Facts) -> bool:
        return any(it.verdict.state is ConnectionStatus.CONNECTED for it in self._beside(facts))

    def released_wall(self, facts: Facts) -> float:
        """Unix time of the begin of the session's turn as a canary, else of its last incident's
        end."""
        incident = self.active.get(group_of(facts))
        if incident is not None and incident.canary == facts.id:
            return time.time() - (boot_now() - incident.turn_at)
        return self._released.get(group_of(facts), 0.0)

    def codes(self) -> dict[str, str]:
        """Return the code of each group's incident; "" = none."""
        none = dict.fromkeys(map(group_of, self.all_facts.values()), "")
        return none | {group: incident.code for group, incident in self.active.items()}

    def release_at_once(self, group: str) -> None:
        """End an incident by an operator's order: its members try now. NotFound: no such group."""
        if (incident := self.active.get(group)) is None:
            raise errors.NotFound(f"cannot release an incident of {group}: there is none")
        for facts in self._members(incident):
            facts.asked.try_at_once = True
        self.release(group, "an operator released it")

    def release(self, group: str, why: str) -> None:
        """The incident is over: its members may try again, in their turns. Earlier failures prove
        nothing any more."""
        incident, self._released[group] = self.active.pop(group), time.time()
        for facts in self._of(group):
            facts.failures.clear()
        self._say("incident_over", f"incident over: {incident.sentence}; {why}", incident)
        for facts in self._members(incident):
            self._hurry(facts)

    def _end_if_well(self, incident: admission.Incident) -> bool:
        if over := not self._not_well(incident):
            self.release(incident.group, "all its members are well, or are not to run")
        return over

    def _not_well(self, incident: admission.Incident) -> list[Facts]:
        return [it for it in self._members(incident) if it.should_run and not is_well(it.verdict)]

    def _members(self, incident: admission.Incident) -> list[Facts]:
        return [self.all_facts[id] for id in incident.members if id in self.all_facts]

    def _hurry(self, facts: Facts) -> None:
        if facts.repairing:
            facts.repair = facts.repairing.hurry(paired=facts.record.paired)
        self.wake(facts.id)

    def _say(self, kind: str, sentence: str, incident: admission.Incident) -> None:
        log.warning("%s", sentence, extra=log.about(incident.canary or "-", Category.HEALTH))
        who = incident.canary if kind == "canary" else None
        detail = {"engine": incident.group, "code": incident.code, "kind": incident.kind}
        self.notes.write(JournalEntry(kind, sentence, Category.HEALTH, who, time.time(), detail))

    def _of(self, group: str) -> list[Facts]:
        return [facts for facts in self.all_facts.values() if group_of(facts) == group]

    def _beside(self, facts: Facts) -> list[Facts]:
        """The others of its group that go out the same way. What the rest do proves nothing about
        this way."""
        if (way := self._way_out(facts)) is None:
            return []
        others = self._of(group_of(facts))
        return [other for other in others if other is not facts and self._way_out(other) == way]

    def _way_out(self, facts: Facts) -> str | None:
        """Return the way by which a session goes out; None = not known, so no other has it."""
        return (self.backends if facts.instance.backend else self.reaching).way_out(facts)


def is_well(verdict: HealthVerdict) -> bool:
    """True if the session is connected or shows its code: its group counts it as recovered."""
    return verdict.healthy or verdict.state is ConnectionStatus.QR_REQUIRED


def group_of(facts: Facts) -> str:
    """The engine, and for a session on a backend the backend, for a program the program: two
    commands have nothing in common by which one could prove something for the other."""
    engine = facts.instance.engine
    own = facts.instance.settings.get(entry_of(engine).alike_by)
    return f"{engine}/{own}" if isinstance(own, str) and own else engine


MEMORY_FULL = "memory_full"


class Alone:
    """A machine without a fleet, whose sessions run without a lease; agent/fleet/running.py takes
    its place in a fleet."""

    leased, name = False, ""  # the name is the machine's in its fleet

    def attached(self, facts: Facts) -> None:
        """Note that the link to a session's worker is open."""

    def holds(self, facts: Facts, plan: reconcile.Plan | None) -> Wait | None:
        """Return why the session must wait for its machine's lease."""
        return None

    def has(self, id: str) -> bool:
        """True if a machine of the fleet has a session of that name."""
        return False

    def may_make(self, id: InstanceId, doing: str) -> None:
        """Raise Refused if another machine has a session of that name."""

    async def made(self, id: InstanceId, doing: str) -> None:
        """Wait before a new session is answered; Refused if another machine was first."""

    async def kept(self, id: InstanceId) -> None:
        """Wait before an order is answered: it outlives this machine if others can have it soon."""

    def has_copy(self, id: InstanceId) -> bool:
        """True if another machine has the newest files of this session, and brings them."""
        return False

    async def others(self) -> Mapping[str, Any]:
        """Return sessions of other machines as these show them, in JSON."""
        return {}

    async def close(self, *, leave: bool) -> None:
        """End with the agent; its workers have ended, unless `leave`."""


@dataclass(slots=True, eq=False, repr=False)
class Gate:
    """Asked in each pass and before each plan. It knows which workers were promised memory: their
    limits count, not present use, for sessions grow. No running worker is stopped for it."""

    settings: Settings
    backends: Backends
    reaching: Reaching
    incidents: Incidents
    wake: Callable[[InstanceId], None]
    queues: admission.Queues = field(init=False)
    fleet: Alone = field(init=False, default_factory=Alone)
    _promised: dict[InstanceId, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.queues = admission.Queues(self.wake)

    def ask(self, facts: Facts, plan: reconcile.Plan | None = None) -> Wait | None:
        """None: go. Without a plan: what holds the session, whatever it would do. A plan that logs
        in takes its turn and has it until `try_ended`. An ordered restart waits for no turn, and a
        step of a repair for no incident: the ladder has asked for that."""
        if facts.held and (plan is None or plan.logs_in):
            return Wait(words.SAME_DEVICE, facts.held, boot_now() + admission.ASK_AGAIN)
        if plan is not None and plan.logs_in and facts.banned:
            return Wait(facts.record.reason, again=boot_now() + admission.ASK_AGAIN)
        if (held := self.fleet.holds(facts, plan)) is not None or plan is None:
            return held or self._others(facts) or self._room(facts)
        # Only a server connects its session again for new keys.
        new_keys = facts.instance.backend and reconcile.ActionKind.REGENERATE_KEYS in plan.actions
        if not (plan.logs_in or new_keys):
            return None
        if plan.repair:
            return self._room(facts) or self._turn(facts, plan)
        if plan.ordered:
            return self._circuit(facts)
        held = self._others(facts) or self._room(facts)
        return held or self._turn(facts, plan) or self._circuit(facts)

    def away(self, facts: Facts) -> str:
        """Return the reason while the session's backend or address is away; "" = both are there."""
        return self.backends.wait_reason(facts) or self.reaching.wait_reason(facts)

    def failed(self, facts: Facts, code: str) -> None:
        self.reaching.failed(facts, code)
        self.incidents.failed(facts, code)

    def succeeded(self, facts: Facts) -> None:
        self.reaching.succeeded(facts)
        self.incidents.succeeded(facts)

    def note_wait(self, facts: Facts) -> None:
        """Note the wait, so that an order's answer says at once that the start has to wait."""
        if not facts.wait.reason:
            facts.wait = self.ask(facts) or Wait()

    def note_look(self, facts: Facts) -> None:
        """Note a look at the worker: while the worker runs it has its room."""
        if facts.unit.runs:
            self.promise(facts)
        else:
            self._promised.pop(facts.id, None)

    def note_claim(self, facts: Facts) -> None:
        """Note a claim: it may show that the heavy part of the session's start is over."""
        if facts.claim is not None and facts.claim.is_light:
            self.queues.free_place(facts.id)
        if facts.claim is not None and facts.claim.claim.reason == words.NOT_TOLD:
            self.queues.try_ended(facts.id)  # it may never tell more

    def promise(self, facts: Facts) -> None:
        if not facts.instance.backend:
            self._promised[facts.id] = self.settings.memory_limit(facts)

    def forget(self, id: InstanceId) -> None:
        self.queues.withdraw(id)
        self._promised.pop(id, None)
        self.reaching.forget(id)
        self.incidents.pass_turn(id)

    def _others(self, facts: Facts) -> Wait | None:
        """Ask the server, the address and the incident, which may hold the session."""
        if not (reason := self.away(facts) or self.incidents.wait_reason(facts)):
            return None
        numbers = ""
        if reason == reasons.UNREACHABLE:
            numbers = self.reaching.of(facts).sentence
        elif reason in (BACKEND_DOWN, BACKEND_UNCHECKED):
            numbers = self.backends.why_away(facts)
        return Wait(reason, numbers, boot_now() + admission.ASK_AGAIN)

    def _room(self, facts: Facts) -> Wait | None:
        """Ask for room. A worker that runs keeps its room; one that was promised room has it."""
        runs = facts.unit.runs or facts.id in self._promised
        if runs or facts.instance.backend or not facts.should_run:
            return None
        settings, disk = self.settings, facts.folder.disk_problem
        limit, budget = settings.memory_limit(facts), settings.memory_budget()
        promised = self._promised.values()
        lack = disk or memory.lacks_room(sum(promised), len(promised), limit, budget)
        reason, again = "disk_full" if disk else MEMORY_FULL, boot_now() + admission.ASK_AGAIN
        return Wait(reason, lack, again) if lack else None

    def _turn(self, facts: Facts, plan: reconcile.Plan) -> Wait | None:
        """Wait for a turn in the queue; then for a good look at the address, or an answer of the
        server."""
        id, now, lane = facts.id, boot_now(), facts.instance.backend
        policy = self.settings.start_policy(remote=bool(lane))

        def ready() -> float | None:
            return self.reaching.ask(facts, now) or self.backends.ask(facts, now)

        again = self.queues.ask(id, policy, now, reconnects=not plan.starts, lane=lane, ready=ready)
        if again is not None:
            return Wait(WAITS_TURN, again=again)
        if not facts.unit.runs:
            # At once, or two sessions that are looked at side by side would both find the last
            # room.
            self.promise(facts)
        return None

    def _circuit(self, facts: Facts) -> Wait | None:
        """Ask the circuit of the session's server: a half-open one lets one session begin."""
        if self.backends.may_begin(facts):
            return None
        self.queues.try_ended(facts.id)  # it got its turn and cannot use it
        self.queues.no_login()
        return Wait("backend_circuit", again=boot_now() + admission.ASK_AGAIN)
