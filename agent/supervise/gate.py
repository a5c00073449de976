"""The queues in front of starts and reconnects: many sessions never come back in one burst."""

from collections.abc import Callable

from agent.core.admission import Bucket, Gate, StartPolicy, admit, for_reconnects
from agent.core.model import InstanceId

ASK_AGAIN = 5.0
"""Seconds after which a waiting instance asks by itself, should nobody wake it."""


class StartGate:
    """Keeps who waits and who is under way; the rules are the core's.

    A reconnect begins no process, so it waits for no stagger; both share the parallel limit
    and the machine's login budget.
    """

    def __init__(
        self,
        policy: Callable[[], StartPolicy],
        *,
        wake: Callable[[InstanceId], None],
        idle: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` gives the random seconds by which the next start is put off."""
        self._policy = policy
        self._wake = wake
        self._idle = idle
        self._jitter = jitter
        self._starts: dict[InstanceId, None] = {}
        self._reconnects: dict[InstanceId, None] = {}
        self._under_way: set[InstanceId] = set()
        self._bucket = Bucket(policy().logins, 0.0)
        self._last_begun: float | None = None

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        return len(self._starts) + len(self._reconnects)

    def ask(self, instance: InstanceId, now: float, *, reconnects: bool = False) -> float | None:
        """None: go now, and call `settled` when it came to something. A time: ask again then."""
        if instance in self._under_way:
            return None
        queue = self._reconnects if reconnects else self._starts
        queue.setdefault(instance)
        if next(iter(queue)) != instance:
            return now + ASK_AGAIN
        gate = Gate(self._bucket, len(self._under_way), self._last_begun)
        policy = for_reconnects(self._policy()) if reconnects else self._policy()
        admission = admit([instance], gate, policy, now, idle=self._idle())
        if not admission.admitted:
            return now + ASK_AGAIN if admission.ask_again is None else admission.ask_again
        self._bucket = admission.gate.bucket
        if not reconnects:
            self._last_begun = now + self._jitter()
        del queue[instance]
        self._under_way.add(instance)
        self._wake_next()
        return None

    def settled(self, instance: InstanceId) -> None:
        """What was under way came to something: connected, waits for a scan, failed."""
        if instance in self._under_way:
            self._under_way.discard(instance)
            self._wake_next()

    def withdraw(self, instance: InstanceId) -> None:
        """It waits for no turn any more."""
        self.settled(instance)
        queues = (self._starts, self._reconnects)
        if any(queue.pop(instance, self) is None for queue in queues):
            self._wake_next()

    def _wake_next(self) -> None:
        for queue in (self._starts, self._reconnects):
            if queue:
                self._wake(next(iter(queue)))


class Gates:
    """One gate for what this machine runs, and one per backend: none waits for another's."""

    def __init__(self, local: StartGate, remote: Callable[[], StartGate]) -> None:
        """`remote` makes the gate of one more backend."""
        self._gates = {"": local}
        self._remote = remote
        self._lane_of: dict[InstanceId, str] = {}

    def ask(
        self, instance: InstanceId, now: float, *, reconnects: bool = False, lane: str = ""
    ) -> float | None:
        if lane not in self._gates:
            self._gates[lane] = self._remote()
        if lane:
            self._lane_of[instance] = lane
        return self._gates[lane].ask(instance, now, reconnects=reconnects or bool(lane))

    def settled(self, instance: InstanceId) -> None:
        self._of(instance).settled(instance)

    def withdraw(self, instance: InstanceId) -> None:
        self._of(instance).withdraw(instance)
        self._lane_of.pop(instance, None)

    def _of(self, instance: InstanceId) -> StartGate:
        return self._gates[self._lane_of.get(instance, "")]
