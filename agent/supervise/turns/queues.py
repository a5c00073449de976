"""The queues in front of all that logs in: many sessions never come back in one burst."""

import math
from collections.abc import Callable

from agent.core.admission import Bucket, Gate, StartPolicy, admit, for_reconnects
from agent.core.model import InstanceId

ASK_AGAIN = 5.0
"""Seconds after which a waiting instance asks again, if it was not woken."""
ABSENT = 3 * ASK_AGAIN
"""An instance that has not asked for so long is skipped."""


class LoginBudget:
    """The logins of the whole machine: one budget for its own sessions and those on backends."""

    def __init__(self, policy: Callable[[], StartPolicy]) -> None:
        self._policy = policy
        self.bucket = Bucket(math.inf, 0.0)  # full: filling cuts it to what the settings say

    def left(self, now: float) -> float | None:
        """Logins that may be taken at once; None: as many as one likes."""
        policy = self._policy()
        return None if policy.login_every <= 0 else self.bucket.filled(policy, now).level

    def give_back(self, now: float) -> None:
        self.bucket = self.bucket.give_back(self._policy(), now)


class StartGate:
    """Keeps who waits and who is under way; the rules are the core's.

    A reconnect begins no process, so it waits for no stagger; both share the parallel limit
    and the machine's login budget.
    """

    def __init__(
        self,
        policy: Callable[[], StartPolicy],
        budget: LoginBudget,
        *,
        wake: Callable[[InstanceId], None],
        idle: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` gives the random seconds by which the next start is put off."""
        self._policy = policy
        self._budget = budget
        self._wake = wake
        self._idle = idle
        self._jitter = jitter
        self._starts: dict[InstanceId, float] = {}
        self._reconnects: dict[InstanceId, float] = {}
        """Who waits, in order, and when each asked last."""
        self._under_way: set[InstanceId] = set()
        self._last_begun: float | None = None

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues())

    def before(self, instance: InstanceId) -> int | None:
        """How many go before it; None: it waits for no turn."""
        places = [list(q).index(instance) for q in self._queues() if instance in q]
        return min(places, default=None)

    def ask(self, instance: InstanceId, now: float, *, reconnects: bool = False) -> float | None:
        """None: go now, and call `settled` when it came to something. A time: ask again then."""
        if instance in self._under_way:
            return None
        queue = self._reconnects if reconnects else self._starts
        queue[instance] = now
        if not _is_next(instance, queue, now):
            return now + ASK_AGAIN
        gate = Gate(self._budget.bucket, len(self._under_way), self._last_begun)
        policy = for_reconnects(self._policy()) if reconnects else self._policy()
        admission = admit([instance], gate, policy, now, idle=self._idle())
        if not admission.admitted:
            return now + ASK_AGAIN if admission.ask_again is None else admission.ask_again
        self._budget.bucket = admission.gate.bucket
        if not reconnects:
            self._last_begun = now + self._jitter()
        self._under_way.add(instance)
        for each in self._queues():
            each.pop(instance, None)
        self._wake_next()
        return None

    def settled(self, instance: InstanceId) -> None:
        """What was under way came to something: connected, waits for a scan, failed, stuck."""
        if instance in self._under_way:
            self._under_way.discard(instance)
            self._wake_next()

    def leave(self, instance: InstanceId, now: float) -> None:
        """It waits for no turn any more, unless it has asked at `now` or later."""
        left = [q for q in self._queues() if q.get(instance, now) < now]
        for queue in left:
            del queue[instance]
        if left:
            self._wake_next()

    def withdraw(self, instance: InstanceId) -> None:
        """It is gone: neither under way nor waiting."""
        self.settled(instance)
        self.leave(instance, float("inf"))

    def _queues(self) -> tuple[dict[InstanceId, float], ...]:
        return self._starts, self._reconnects

    def _wake_next(self) -> None:
        for queue in self._queues():
            if queue:
                self._wake(next(iter(queue)))


class Gates:
    """One gate for what this machine runs, and one per backend: none waits for another's turn.

    The budget of logins is the machine's: all of them share it.
    """

    def __init__(
        self, local: StartGate, remote: Callable[[], StartGate], budget: LoginBudget
    ) -> None:
        """`remote` makes the gate of one more backend."""
        self._gates = {"": local}
        self._remote = remote
        self._budget = budget
        self._lane_of: dict[InstanceId, str] = {}

    def ask(
        self, instance: InstanceId, now: float, *, reconnects: bool = False, lane: str = ""
    ) -> float | None:
        if lane not in self._gates:
            self._gates[lane] = self._remote()
        if lane:
            self._lane_of[instance] = lane
        return self._gates[lane].ask(instance, now, reconnects=reconnects or bool(lane))

    @property
    def waiting(self) -> int:
        return sum(gate.waiting for gate in self._gates.values())

    def logins_left(self, now: float) -> float | None:
        return self._budget.left(now)

    def no_login(self, now: float) -> None:
        """What was let in found a session that is connected: it has cost no login."""
        self._budget.give_back(now)

    def before(self, instance: InstanceId) -> int | None:
        return self._of(instance).before(instance)

    def settled(self, instance: InstanceId) -> None:
        self._of(instance).settled(instance)

    def leave(self, instance: InstanceId, now: float) -> None:
        self._of(instance).leave(instance, now)

    def withdraw(self, instance: InstanceId) -> None:
        self._of(instance).withdraw(instance)
        self._lane_of.pop(instance, None)

    def _of(self, instance: InstanceId) -> StartGate:
        return self._gates[self._lane_of.get(instance, "")]


def _is_next(instance: InstanceId, queue: dict[InstanceId, float], now: float) -> bool:
    """Nobody who still asks stands before it."""
    for one, asked in queue.items():
        if one == instance:
            return True
        if now - asked < ABSENT:
            return False
    raise AssertionError("asked and not in the queue")
