"""The queues before each login: many sessions never come back in one burst."""

from collections.abc import Callable

from agent.core.admission import LoginBudget, StartPolicy, StartQueue
from agent.core.model import InstanceId


class Queues:
    """One queue for this machine's sessions, and one per backend. All share the machine's budget of
    logins."""

    def __init__(
        self,
        local: Callable[[], StartPolicy],
        remote: Callable[[], StartPolicy],
        *,
        wake: Callable[[InstanceId], None],
        idle: Callable[[], bool],
        jitter: Callable[[], float],
    ) -> None:
        self._remote = remote
        self._wake = wake
        self._idle = idle
        self._jitter = jitter
        self._budget = LoginBudget(local)
        self._queues = {"": StartQueue(local, self._budget, idle=idle, jitter=jitter)}
        self._lane_of: dict[InstanceId, str] = {}

    def ask(
        self, instance: InstanceId, now: float, *, reconnects: bool = False, lane: str = ""
    ) -> float | None:
        """None: go now, and call `settled` when its try has ended. A time: ask again then."""
        if lane not in self._queues:
            self._queues[lane] = StartQueue(
                self._remote, self._budget, idle=self._idle, jitter=self._jitter
            )
        if lane:
            self._lane_of[instance] = lane
        queue = self._queues[lane]
        waits = instance not in queue.under_way
        # On a backend neither begins a process here.
        again = queue.ask(instance, now, reconnects=reconnects and not lane)
        if waits and again is None:
            self._wake_next(queue)
        return again

    @property
    def waiting(self) -> int:
        return sum(queue.waiting for queue in self._queues.values())

    def no_login(self, now: float) -> None:
        """The session was connected already: its turn cost no login."""
        self._budget.give_back(now)

    def waits(self, instance: InstanceId) -> bool:
        return self._of(instance).waits(instance)

    def before(self, instance: InstanceId) -> int | None:
        return self._of(instance).before(instance)

    def settled(self, instance: InstanceId) -> None:
        if (queue := self._of(instance)).settled(instance):
            self._wake_next(queue)

    def is_light(self, instance: InstanceId) -> None:
        if (queue := self._of(instance)).is_light(instance):
            self._wake_next(queue)

    def leave(self, instance: InstanceId, now: float) -> None:
        if (queue := self._of(instance)).leave(instance, now):
            self._wake_next(queue)

    def withdraw(self, instance: InstanceId) -> None:
        """The instance was deleted: neither under way nor waiting."""
        self.settled(instance)
        self.leave(instance, float("inf"))
        self._lane_of.pop(instance, None)

    def _of(self, instance: InstanceId) -> StartQueue:
        return self._queues[self._lane_of.get(instance, "")]

    def _wake_next(self, queue: StartQueue) -> None:
        for instance in queue.first:
            self._wake(instance)
