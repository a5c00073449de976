"""The queue in front of starts, so that many sessions never come back in one burst."""

from collections.abc import Callable

from agent.core.admission import Bucket, Gate, StartPolicy, admit
from agent.core.model import InstanceId

ASK_AGAIN = 5.0
"""Seconds after which a waiting instance asks by itself, should nobody wake it."""


class StartGate:
    """Keeps who waits and who is under way; the rules are the core's."""

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
        self._queue: dict[InstanceId, None] = {}
        self._under_way: set[InstanceId] = set()
        self._bucket = Bucket(policy().logins, 0.0)
        self._last_begun: float | None = None

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def ask(self, instance: InstanceId, now: float) -> float | None:
        """None: go now, and call `settled` when it came to something. A time: ask again then."""
        if instance in self._under_way:
            return None
        self._queue.setdefault(instance)
        if next(iter(self._queue)) != instance:
            return now + ASK_AGAIN
        gate = Gate(self._bucket, len(self._under_way), self._last_begun)
        admission = admit([instance], gate, self._policy(), now, idle=self._idle())
        if not admission.admitted:
            return now + ASK_AGAIN if admission.ask_again is None else admission.ask_again
        self._bucket = admission.gate.bucket
        self._last_begun = now + self._jitter()
        del self._queue[instance]
        self._under_way.add(instance)
        self._wake_next()
        return None

    def settled(self, instance: InstanceId) -> None:
        """The start came to something: connected, waits for a scan, failed, no longer wanted."""
        was_there = instance in self._under_way or instance in self._queue
        self._queue.pop(instance, None)
        self._under_way.discard(instance)
        if was_there:
            self._wake_next()

    def _wake_next(self) -> None:
        if self._queue:
            self._wake(next(iter(self._queue)))
