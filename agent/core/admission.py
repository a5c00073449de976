"""Who may start now: order, spacing, parallel starts, the machine's login budget, the queue."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.model import InstanceId
from agent.core.setting import setting

ASK_AGAIN = 5.0
"""Seconds after which a waiting instance asks again, unless it is woken."""
ABSENT = 3 * ASK_AGAIN
"""The queue skips an instance that should have asked so long ago."""


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """The [start] table; a policy in force has the real number as `parallel`."""

    stagger: float = setting(
        2.0,
        "seconds between the starts of two instances, at most: the next one begins as soon as the"
        " one before logs in",
        low=0,
    )
    parallel: int = setting(
        0, "simultaneous starts of workers, each until it logs in; 0 = twice the cores", low=0
    )
    logins: int = setting(
        30,
        "logins that may begin in one burst, on this machine and on all backends together; so many"
        " may be under way here at once",
        low=1,
    )
    login_every: float = setting(
        0.2, "seconds until the budget of logins regains one; 0 = no budget", low=0
    )
    disk_free: int = setting(
        200 << 20,
        "bytes that must be free on the disk of the sessions before a worker starts; 0 = no check",
        low=0,
    )
    first_check: float = setting(
        15.0, "seconds from the agent's start to the first check", low=0, restart=True
    )


class LoginBudget:
    """The logins of the whole machine, of its own sessions and of those on backends: a bucket that
    regains one each `login_every` seconds. It is full at first."""

    def __init__(self) -> None:
        self._level, self._at = math.inf, 0.0

    def take(self, policy: StartPolicy, now: float) -> float | None:
        """None: one is taken. A time: when the next one can be."""
        if policy.login_every <= 0:
            return None
        gained = max(now - self._at, 0.0) / policy.login_every
        self._level, self._at = min(self._level + gained, policy.logins), now
        if self._level < 0.999:  # at the time that it told, a rounding is lacking
            return now + (1 - self._level) * policy.login_every
        self._level -= 1
        return None

    def give_back(self) -> None:
        """Put back a login that was taken and not needed."""
        self._level += 1


@dataclass(slots=True, eq=False)
class _Lane:
    """Sessions of this machine, or of one backend, that wait for a turn to log in or have it."""

    queue: dict[InstanceId, float] = field(default_factory=dict)
    """Waiting sessions, in order, and when each asked last, or was told to; -inf: it waits for
    more than its turn."""
    under_way: dict[InstanceId, bool] = field(default_factory=dict)
    """True: it only waits for WhatsApp, and needs the machine no more."""
    last: tuple[InstanceId, float] | None = None
    """The last start, and when it began; None: the heavy part of it is over."""

    def earliest(self, policy: StartPolicy, now: float, *, reconnects: bool) -> float:
        """When the next one may begin, or asks again, as no place is free."""
        heavy, parallel = list(self.under_way.values()).count(False), policy.parallel
        if heavy >= parallel or len(self.under_way) >= max(parallel, policy.logins):
            return now + ASK_AGAIN
        if reconnects or self.last is None or policy.stagger <= 0:
            return now
        # A clock that was set back must not stop the queue.
        return min(self.last[1], now) + policy.stagger

    def is_next(self, instance: InstanceId, now: float) -> bool:
        """No session that still asks is before it."""
        for waiting, asked in self.queue.items():
            if waiting == instance or now - asked < ABSENT:
                return waiting == instance
        return True

    def release(self, instance: InstanceId) -> bool:
        """True if it was the last start, for which the next one waits."""
        if self.last is None or self.last[0] != instance:
            return False
        self.last = None
        return True


class Queues:
    """One queue for this machine's sessions, and one per backend: many sessions never come back in
    one burst. All share the machine's budget of logins.

    A start waits until the one before is light or has ended, `stagger` seconds at most. A reconnect
    begins no worker, so it waits for no stagger, and goes before the starts. What is light leaves
    its place to the next: how long WhatsApp takes for a login is no load of this machine.
    """

    def __init__(self, wake: Callable[[InstanceId], None]) -> None:
        self._wake = wake
        self._budget = LoginBudget()
        self._lanes = {"": _Lane()}
        self._lane_of: dict[InstanceId, str] = {}
        self._asked: set[InstanceId] = set()

    def ask(
        self,
        instance: InstanceId,
        policy: StartPolicy,
        now: float,
        *,
        reconnects: bool = False,
        lane: str = "",
        ready: Callable[[], float | None],
    ) -> float | None:
        """None: go now, and call `try_ended` when its try has ended. A time: ask again then.
        `ready` is asked once its turn has come, so that what it waits for costs it no place."""
        self._asked.add(instance)
        self._lane_of[instance] = lane
        its = self._lanes.setdefault(lane, _Lane())
        if instance in its.under_way:
            return ready()
        if reconnects and instance not in its.queue:
            its.queue = {instance: now, **its.queue}
        its.queue[instance] = now
        if not its.is_next(instance, now):
            return now + ASK_AGAIN
        at = its.earliest(policy, now, reconnects=reconnects)
        if at <= now:
            at = self._budget.take(policy, now) or now
        if at > now:
            its.queue[instance] = at  # until then it is not absent
            return at
        wait = ready()
        if wait is None:
            if not reconnects:
                its.last = instance, now
            its.under_way[instance] = False
            its.queue.pop(instance)
        else:
            self._budget.give_back()
            its.queue[instance] = -math.inf  # it keeps its place, and the next ones go
        self._wake_next(its)
        return wait

    def no_login(self) -> None:
        """The session was connected already: its turn cost no login."""
        self._budget.give_back()

    def before(self, instance: InstanceId) -> int | None:
        """How many go before it; None: it waits for no turn."""
        queue = list(self._of(instance).queue)
        return queue.index(instance) if instance in queue else None

    def free_place(self, instance: InstanceId) -> None:
        """The heavy part of a session's start is over: the next one may have its place."""
        its = self._of(instance)
        released = its.release(instance)
        if its.under_way.get(instance) is False:
            its.under_way[instance] = released = True
        if released:
            self._wake_next(its)

    def try_ended(self, instance: InstanceId) -> None:
        """A session's try has ended, and its turn with it: it is connected, waits for a scan,
        failed or is stuck."""
        its = self._of(instance)
        if its.under_way.pop(instance, None) is not None:
            its.release(instance)
            self._wake_next(its)

    def leave(self, instance: InstanceId) -> None:
        """The pass of a session is over: if it did not ask in this one, it waits for no turn."""
        its = self._of(instance)
        if instance in self._asked:
            self._asked.discard(instance)
        elif its.queue.pop(instance, None) is not None:
            self._wake_next(its)

    def withdraw(self, instance: InstanceId) -> None:
        """The instance was deleted: neither under way nor waiting."""
        self.try_ended(instance)
        self._asked.discard(instance)
        self.leave(instance)
        self._lane_of.pop(instance, None)

    def _of(self, instance: InstanceId) -> _Lane:
        return self._lanes[self._lane_of.get(instance, "")]

    def _wake_next(self, lane: _Lane) -> None:
        for instance, asked in lane.queue.items():
            if asked > -math.inf:
                self._wake(instance)
                break
