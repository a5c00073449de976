"""Starts spread over time: one lane for the machine, one for each backend, by the core's rules."""

from collections.abc import Callable
from dataclasses import replace

from agent.core.admission import Bucket, Gate, StartPolicy, admit, for_reconnects
from agent.core.model import ActionKind, InstanceId
from scripts.simulation.faults import CAPACITY
from scripts.simulation.session import Session
from scripts.simulation.world import Machine

STARTS = StartPolicy(parallel=CAPACITY)
ELSEWHERE = StartPolicy(stagger=0.0, parallel=50, logins=50, login_every=1 / 50)
"""On a backend no process of ours begins: what [start] remote_parallel says by itself."""


class Lane:
    def __init__(
        self,
        machine: Machine,
        policy: StartPolicy,
        sessions: dict[InstanceId, Session],
        begin: Callable[[InstanceId, float], None],
    ) -> None:
        self._machine = machine
        self._policy = policy
        self._sessions = sessions
        self._start = begin
        self._gate = Gate(Bucket(policy.logins, 0.0))
        self._waiting: dict[InstanceId, ActionKind] = {}
        self._begun: dict[InstanceId, tuple[int, float]] = {}
        """Starts under way: the session's turn, and since when."""
        self._asks_at = float("inf")

    def wait(self, instance: InstanceId, kind: ActionKind) -> None:
        self._waiting[instance] = kind

    def begun(self, instance: InstanceId, at: float) -> None:
        self._begun[instance] = (self._sessions[instance].turn, at)

    def settled(self, instance: InstanceId, at: float) -> None:
        """What was under way came to something: the next one need not wait any longer."""
        if self._begun.pop(instance, None) is not None and self._waiting:
            self._ask_again(at, at)

    def admit(self, at: float) -> None:
        again = at + max(self._policy.stagger, 1.0)
        reconnects = for_reconnects(self._policy)
        for kind, policy in ((ActionKind.CONNECT, reconnects), (ActionKind.START, self._policy)):
            waiting = [one for one, wanted in self._waiting.items() if wanted is kind]
            if not waiting:
                continue
            under_way = self._under_way(at)
            gate = replace(self._gate, under_way=under_way)
            outcome = admit(waiting, gate, policy, at, idle=under_way == 0)
            self._gate = outcome.gate
            again = min(again, outcome.ask_again or again)
            for instance in outcome.admitted:
                del self._waiting[instance]
                self._start(instance, at)
        if self._waiting:
            self._ask_again(again, at)

    def _under_way(self, at: float) -> int:
        """Starts that have come to nothing yet; a stuck one does not hold the others for ever."""
        self._begun = {
            one: (turn, since)
            for one, (turn, since) in self._begun.items()
            if self._sessions[one].turn == turn and at - since < 60.0
        }
        return len(self._begun)

    def _ask_again(self, when: float, at: float) -> None:
        if at < self._asks_at <= when:
            return
        self._asks_at = when = max(when, at + 0.05)

        def ask(now: float) -> None:
            if now >= self._asks_at:
                self._asks_at = float("inf")
                self.admit(now)

        self._machine.later(when, ask)
