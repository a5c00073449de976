"""Asked before each login: can its address be reached, is there memory, is it its turn?"""

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.admission import ASK_AGAIN
from agent.core.model import InstanceId
from agent.core.phases import is_light
from agent.core.plan import ActionKind, Plan
from agent.core.reasons import UNREACHABLE
from agent.core.waiting import BACKEND_DOWN, BACKEND_UNCHECKED
from agent.core.words import NOT_TOLD
from agent.supervise.facts import Facts
from agent.supervise.reach import Reaching
from agent.supervise.turns.memory import LACKS, MemoryRoom
from agent.supervise.turns.queues import Queues


@dataclass(frozen=True, slots=True)
class Turns:
    gates: Queues
    room: MemoryRoom
    reaching: Reaching
    ask_server: Callable[[Facts, float], float | None]
    """Whether its backend's server answers: None, or when to ask again."""
    why_away: Callable[[Facts], str]
    """Why its backend is away; "" = it is not."""

    def ask(self, facts: Facts, plan: Plan) -> float | None:
        """None: go now. A time: ask again then. A plan that does not log in needs no turn."""
        # Only a server connects its session again for new keys.
        new_keys = ActionKind.REGENERATE_KEYS in plan.actions and bool(facts.instance.backend)
        if not (plan.tries or new_keys):
            return None
        begins, now = not facts.unit.runs, boot_now()
        if begins and self.room.lacks(facts):
            return now + ASK_AGAIN
        look = self.reaching.ask(facts, now) or self.ask_server(facts, now)
        if look is not None:
            return look
        lane = facts.instance.backend
        wait = self.gates.ask(facts.id, now, reconnects=not plan.starts, lane=lane)
        if wait is None and begins:
            # At once, or two sessions that are looked at side by side would both find the last
            # room.
            self.room.promise(facts)
        return wait

    def says(self, facts: Facts) -> str:
        """The wait reason with its numbers; "" = none."""
        if facts.wait_reason == UNREACHABLE:
            return self.reaching.sentence(facts)
        if facts.wait_reason in (BACKEND_DOWN, BACKEND_UNCHECKED):
            return self.why_away(facts)
        return self.room.lacks(facts) if facts.wait_reason in LACKS else ""

    def note_claim(self, facts: Facts) -> None:
        """What its worker reports may show that the heavy part of its start is over."""
        claim = None if facts.run.claim is None else facts.run.claim.claim
        if claim is not None and is_light(claim):
            self.gates.is_light(facts.id)
        if claim is not None and claim.reason == NOT_TOLD:
            self.gates.settled(facts.id)  # it may never tell more

    def settled(self, facts: Facts) -> None:
        self.gates.settled(facts.id)

    def not_used(self, facts: Facts) -> None:
        """The session got its turn and cannot use it: no try began."""
        self.gates.settled(facts.id)
        self.gates.no_login(boot_now())

    def forget(self, id: InstanceId) -> None:
        self.gates.withdraw(id)
        self.room.forget(id)
        self.reaching.forget(id)
