"""Starts spread over time: one lane for the machine, one for each backend, by the core's rules."""

from collections.abc import Callable

from agent.core.admission import LoginBudget, StartPolicy, StartQueue
from agent.core.model import InstanceId
from agent.core.plan import ActionKind
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
        self._queue = StartQueue(
            lambda: policy, LoginBudget(lambda: policy), idle=lambda: True, jitter=lambda: 0.0
        )
        self._begun: dict[InstanceId, tuple[int, float]] = {}
        """Starts under way: the session's turn, and since when."""
        self._asks_at = float("inf")

    def wait(self, instance: InstanceId, kind: ActionKind, at: float) -> None:
        """It stands in one line only, and what it had under way is over."""
        queue = self._queue
        own, other = queue.starts, queue.reconnects
        if kind is ActionKind.CONNECT:
            own, other = other, own
        queue.settled(instance)
        other.pop(instance, None)
        own[instance] = at

    def begun(self, instance: InstanceId, at: float) -> None:
        self._begun[instance] = (self._sessions[instance].turn, at)

    def is_light(self, instance: InstanceId, at: float) -> None:
        """The heavy part of its start is over: it leaves its place to the next one."""
        if self._queue.is_light(instance) and self._queue.waiting:
            self._ask_again(at, at)

    def settled(self, instance: InstanceId, at: float) -> None:
        """What was under way came to something: the next one need not wait any longer."""
        self._queue.settled(instance)
        if self._begun.pop(instance, None) is not None and self._queue.waiting:
            self._ask_again(at, at)

    def admit(self, at: float) -> None:
        again = at + max(self._policy.stagger, 1.0)
        queue = self._queue
        for line, reconnects in ((queue.reconnects, True), (queue.starts, False)):
            self._end_stuck(at)
            for instance in list(line):
                if instance not in line:
                    continue  # admitted while one before it began
                if (wait := queue.ask(instance, at, reconnects=reconnects)) is not None:
                    again = min(again, wait)
                    break
                self._start(instance, at)
                if instance not in self._begun:
                    queue.settled(instance)
        if queue.waiting:
            self._ask_again(again, at)

    def _end_stuck(self, at: float) -> None:
        """A start that has come to nothing does not hold the others for ever."""
        for instance, (turn, since) in list(self._begun.items()):
            if self._sessions[instance].turn != turn or at - since >= 60.0:
                del self._begun[instance]
                self._queue.settled(instance)

    def _ask_again(self, when: float, at: float) -> None:
        if at < self._asks_at <= when:
            return
        self._asks_at = when = max(when, at + 0.05)

        def ask(now: float) -> None:
            if now >= self._asks_at:
                self._asks_at = float("inf")
                self.admit(now)

        self._machine.later(when, ask)
