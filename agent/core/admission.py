"""Who may start now: order, spacing, parallel starts, the machine's login budget, the queue."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from agent.core.model import InstanceId
from agent.core.setting import setting

ASK_AGAIN = 5.0
"""A waiting instance asks again after so many seconds, unless it is woken."""
ABSENT = 3 * ASK_AGAIN
"""The queue skips an instance that has not asked for so long."""


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


def parallel_starts(chosen: int, cores: int) -> int:
    """How many starts may be under way; a chosen 0 means what suits the machine."""
    return chosen if chosen > 0 else 2 * max(cores, 1)


def for_reconnects(policy: StartPolicy) -> StartPolicy:
    """A reconnect begins no worker, at most its client: only twice the limit of starts and the
    login budget spread it."""
    return replace(policy, stagger=0.0, parallel=2 * policy.parallel)


@dataclass(frozen=True, slots=True)
class Candidate:
    id: InstanceId
    priority: int = 0
    """Higher goes first."""
    active_wall: float = 0.0
    """When it was last connected; the most recent goes first."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `level` tokens were in it at `at`."""

    level: float
    at: float

    def filled(self, policy: StartPolicy, now: float) -> "Bucket":
        gained = max(now - self.at, 0.0) / policy.login_every
        return Bucket(min(self.level + gained, policy.logins), now)

    def take(self, policy: StartPolicy, now: float) -> "Bucket | None":
        """One login less, or None when none is left."""
        if policy.login_every <= 0:
            return self
        filled = self.filled(policy, now)
        return replace(filled, level=filled.level - 1) if filled.level >= 1 else None

    def give_back(self, policy: StartPolicy, now: float) -> "Bucket":
        """Put back a login that was taken and not needed."""
        if policy.login_every <= 0:
            return self
        filled = self.filled(policy, now)
        return replace(filled, level=min(filled.level + 1, policy.logins))

    def next_at(self, policy: StartPolicy, now: float) -> float:
        """When the next login can be taken."""
        if policy.login_every <= 0:
            return now
        missing = 1 - self.filled(policy, now).level
        return now + max(missing, 0.0) * policy.login_every


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of starting at one moment."""

    bucket: Bucket
    under_way: int = 0
    """Starts that have begun and are neither ready nor failed."""
    light: int = 0
    """Of these, how many only wait for WhatsApp: they need the machine no more."""
    last_begun: float | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """`admitted` may start now; the next one must ask again at `ask_again`."""

    admitted: tuple[InstanceId, ...]
    gate: Gate
    ask_again: float | None


def restore_order(candidates: Iterable[Candidate]) -> list[InstanceId]:
    ordered = sorted(
        candidates,
        key=lambda candidate: (-candidate.priority, -candidate.active_wall, candidate.id),
    )
    return [candidate.id for candidate in ordered]


def admit(
    waiting: Sequence[InstanceId], gate: Gate, policy: StartPolicy, now: float, *, idle: bool
) -> Admission:
    """Let in as many of `waiting`, in their order, as may begin at `now`. `idle`: the machine has
    no other work, so a start that is ready releases the next one at once."""
    admitted: list[InstanceId] = []
    for instance in waiting:
        if (at := _earliest(gate, policy, now, idle=idle)) is None or at > now:
            return Admission(tuple(admitted), gate, at)
        bucket = gate.bucket.take(policy, now)
        if bucket is None:
            return Admission(tuple(admitted), gate, gate.bucket.next_at(policy, now))
        gate = replace(gate, bucket=bucket, under_way=gate.under_way + 1, last_begun=now)
        admitted.append(instance)
    return Admission(tuple(admitted), gate, None)


def _earliest(gate: Gate, policy: StartPolicy, now: float, *, idle: bool) -> float | None:
    """When the next start may begin; None: when a start under way has ended."""
    heavy = gate.under_way - gate.light
    if heavy >= policy.parallel or gate.under_way >= max(policy.parallel, policy.logins):
        return None
    if gate.last_begun is None or policy.stagger <= 0:
        return now
    if idle and heavy == 0:
        return now
    # A clock that was set back must not stop the queue.
    return min(gate.last_begun, now) + policy.stagger


class LoginBudget:
    """The logins of the whole machine, of its own sessions and of those on backends."""

    def __init__(self, policy: Callable[[], StartPolicy]) -> None:
        self._policy = policy
        self.bucket = Bucket(math.inf, 0.0)  # full: filling cuts it to what the settings say

    def give_back(self, now: float) -> None:
        self.bucket = self.bucket.give_back(self._policy(), now)


@dataclass(slots=True, eq=False, repr=False)
class StartQueue:
    """Sessions that wait for a turn to log in, and those under way.

    A start waits until the one before is light, `stagger` seconds at most. A reconnect begins no
    worker, so it waits for no stagger and has a limit of its own; starts and reconnects share the
    budget of logins. What is light leaves its place to the next: how long WhatsApp takes for a
    login is no load of this machine. `jitter`: random seconds before the next start.
    """

    policy: Callable[[], StartPolicy]
    budget: LoginBudget
    idle: Callable[[], bool]
    jitter: Callable[[], float]
    starts: dict[InstanceId, float] = field(init=False, default_factory=dict)
    reconnects: dict[InstanceId, float] = field(init=False, default_factory=dict)
    """Waiting sessions, in order, and when each asked last."""
    under_way: set[InstanceId] = field(init=False, default_factory=set)
    light: set[InstanceId] = field(init=False, default_factory=set)
    """Those of `under_way` whose heavy part is over."""
    _last: InstanceId | None = field(init=False, default=None)
    _last_begun: float | None = field(init=False, default=None)
    """When the last start began; None: the heavy part of it is over."""

    @property
    def waiting(self) -> int:
        return len(self.starts) + len(self.reconnects)

    @property
    def first(self) -> list[InstanceId]:
        """The next start and the next reconnect."""
        return [next(iter(queue)) for queue in (self.starts, self.reconnects) if queue]

    def waits(self, instance: InstanceId) -> bool:
        return instance in self.starts or instance in self.reconnects

    def before(self, instance: InstanceId) -> int | None:
        """How many go before it; None: it waits for no turn."""
        queues = [list(queue) for queue in (self.starts, self.reconnects) if instance in queue]
        return min((queue.index(instance) for queue in queues), default=None)

    def ask(self, instance: InstanceId, now: float, *, reconnects: bool = False) -> float | None:
        """None: go now, and call `settled` when its try has ended. A time: ask again then."""
        if instance in self.under_way:
            return None
        queue = self.reconnects if reconnects else self.starts
        queue[instance] = now
        if not _is_next(instance, queue, now):
            return now + ASK_AGAIN
        gate = Gate(self.budget.bucket, len(self.under_way), len(self.light), self._last_begun)
        policy = for_reconnects(self.policy()) if reconnects else self.policy()
        admission = admit([instance], gate, policy, now, idle=self.idle())
        if not admission.admitted:
            return now + ASK_AGAIN if admission.ask_again is None else admission.ask_again
        self.budget.bucket = admission.gate.bucket
        if not reconnects:
            self._last, self._last_begun = instance, now + self.jitter()
        self.under_way.add(instance)
        self.starts.pop(instance, None)
        self.reconnects.pop(instance, None)
        return None

    def is_light(self, instance: InstanceId) -> bool:
        """Its start has passed its heavy part. False: that gives no turn to the next one."""
        leaves_place = instance in self.under_way and instance not in self.light
        if leaves_place:
            self.light.add(instance)
        releases = instance == self._last and self._last_begun is not None
        if releases:
            self._last_begun = None
        return leaves_place or releases

    def settled(self, instance: InstanceId) -> bool:
        """Its try has ended: connected, waits for a scan, failed or stuck. False: it was not under
        way."""
        was_under_way = instance in self.under_way
        self.under_way.discard(instance)
        self.light.discard(instance)
        return was_under_way

    def leave(self, instance: InstanceId, now: float) -> bool:
        """It no longer waits for a turn, unless it has asked at `now` or later."""
        left = [q for q in (self.starts, self.reconnects) if q.get(instance, now) < now]
        for queue in left:
            del queue[instance]
        return bool(left)


def _is_next(instance: InstanceId, queue: dict[InstanceId, float], now: float) -> bool:
    """No session that still asks is before it."""
    for waiting, asked in queue.items():
        if waiting == instance:
            return True
        if now - asked < ABSENT:
            return False
    raise AssertionError("asked and not in the queue")
