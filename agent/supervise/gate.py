"""The gate before each login: may this session start, and if not why, in which order, in which
words, and when to ask again.

The order: the session's server, its address, its incident, room on this machine, a turn in the
queue with the budget of logins, a good look at address and server, the trial of the server's
circuit. Who asked first goes first; a person's `start` takes its place behind them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.backends.declared import Backends
from agent.clock import boot_now
from agent.core.admission import ASK_AGAIN, Queues
from agent.core.memory import lacks_room
from agent.core.model import InstanceId, is_light
from agent.core.observed import BACKEND_DOWN, BACKEND_UNCHECKED, WAITS_TURN
from agent.core.reasons import UNREACHABLE
from agent.core.reconcile import ActionKind, Plan
from agent.core.session import NO_WAIT, Wait
from agent.core.words import NOT_TOLD
from agent.supervise.facts import Facts, Settings
from agent.supervise.incidents import Incidents
from agent.supervise.reach import Reaching

MEMORY_FULL = "memory_full"
RETRY_HELD = 5.0
"""Seconds until a session asks again while another one is the circuit's trial."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Gate:
    """Asked in each pass and before each plan. It knows which workers were promised memory: their
    limits count, not present use, for sessions grow. No running worker is stopped for it."""

    settings: Settings
    backends: Backends
    reaching: Reaching
    incidents: Incidents
    wake: Callable[[InstanceId], None]
    queues: Queues = field(init=False)
    _promised: dict[InstanceId, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        local, remote = self.settings.start_policy, self.settings.remote_start_policy
        self.queues = Queues(local, remote, wake=self.wake)

    def ask(self, facts: Facts, plan: Plan | None = None) -> Wait | None:
        """None: go. Without a plan: what holds the session, whatever it would do. A plan that logs
        in takes its turn and has it until `settled`. An operator's order waits for no turn, and a
        step of a repair for no incident: the ladder has asked for that."""
        if plan is None:
            return self._others(facts) or self._room(facts)
        # Only a server connects its session again for new keys.
        new_keys = ActionKind.REGENERATE_KEYS in plan.actions and bool(facts.instance.backend)
        if not (plan.tries or new_keys):
            return None
        if plan.repair:
            return self._room(facts) or self._turn(facts, plan)
        if plan.ordered:
            return self._circuit(facts)
        held = self._others(facts) or self._room(facts)
        return held or self._turn(facts, plan) or self._circuit(facts)

    def away(self, facts: Facts) -> str:
        """The reason while its backend or its address is not there; "" = both are."""
        return self.backends.wait_reason(facts) or self.reaching.wait_reason(facts)

    def failed(self, facts: Facts, code: str) -> None:
        self.reaching.failed(facts, code)
        self.incidents.failed(facts, code)

    def succeeded(self, facts: Facts) -> None:
        self.reaching.succeeded(facts)
        self.incidents.succeeded(facts)

    def note_wait(self, facts: Facts) -> None:
        """So that an order's answer says at once that the start has to wait."""
        if not facts.wait.reason:
            facts.wait = self.ask(facts) or NO_WAIT

    def note_look(self, facts: Facts) -> None:
        """The worker was looked at: while it runs it has its room."""
        if facts.unit.runs:
            self.promise(facts)
        else:
            self._promised.pop(facts.id, None)

    def note_claim(self, facts: Facts) -> None:
        """A claim may show that the heavy part of its start is over."""
        claim = None if facts.run.claim is None else facts.run.claim.claim
        if claim is not None and is_light(claim):
            self.queues.is_light(facts.id)
        if claim is not None and claim.reason == NOT_TOLD:
            self.queues.settled(facts.id)  # it may never tell more

    def promise(self, facts: Facts) -> None:
        if not facts.instance.backend:
            self._promised[facts.id] = self.settings.memory_limit(facts)

    def forget(self, id: InstanceId) -> None:
        self.queues.withdraw(id)
        self._promised.pop(id, None)
        self.reaching.forget(id)

    def _others(self, facts: Facts) -> Wait | None:
        """The server, the address, the incident that hold it."""
        if not (reason := self.away(facts) or self.incidents.wait_reason(facts)):
            return None
        numbers = ""
        if reason == UNREACHABLE:
            numbers = self.reaching.sentence(facts)
        elif reason in (BACKEND_DOWN, BACKEND_UNCHECKED):
            numbers = self.backends.why_away(facts)
        return Wait(reason, numbers, boot_now() + ASK_AGAIN)

    def _room(self, facts: Facts) -> Wait | None:
        """A worker that runs keeps its room, and one that was promised room has it."""
        runs = facts.unit.runs or facts.id in self._promised
        if runs or facts.instance.backend or not facts.desired.should_run:
            return None
        settings, disk = self.settings, facts.folder.disk_problem
        limit, budget = settings.memory_limit(facts), settings.memory_budget()
        promised = self._promised.values()
        lack = disk or lacks_room(sum(promised), len(promised), limit, budget)
        if not lack:
            return None
        return Wait("disk_full" if disk else MEMORY_FULL, lack, boot_now() + ASK_AGAIN)

    def _turn(self, facts: Facts, plan: Plan) -> Wait | None:
        """Its turn in the queue; then a good look at its address, an answer of its server."""
        now, lane = boot_now(), facts.instance.backend
        again = self.queues.ask(
            facts.id,
            now,
            reconnects=not plan.starts,
            lane=lane,
            ready=lambda: self.reaching.ask(facts, now) or self.backends.ask(facts, now),
        )
        if again is not None:
            return Wait(WAITS_TURN, again=again)
        if not facts.unit.runs:
            # At once, or two sessions that are looked at side by side would both find the last
            # room.
            self.promise(facts)
        return None

    def _circuit(self, facts: Facts) -> Wait | None:
        """A half-open circuit of its server lets one session begin."""
        if self.backends.may_begin(facts):
            return None
        self.queues.settled(facts.id)  # it got its turn and cannot use it
        self.queues.no_login(boot_now())
        return Wait("backend_circuit", again=boot_now() + RETRY_HELD)
