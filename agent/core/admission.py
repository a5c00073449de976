"""Who may start now: order, spacing, parallel starts, and the machine's login budget.

Values in, values out; turns/queues keeps the queue.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agent.core.model import InstanceId
from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """The [start] table; a policy in force has the real number as `parallel`."""

    stagger: float = setting(2.0, "seconds between the starts of two instances", low=0)
    spread: float = setting(1.0, "random seconds, at most, added to each start", low=0)
    parallel: int = setting(0, "simultaneous starts of workers; 0 = twice the cores", low=0)
    remote_parallel: int = setting(
        50, "simultaneous starts of sessions on backends, which start no process here", low=1
    )
    logins: int = setting(
        30,
        "logins that may begin in one burst, on this machine and on all backends together",
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
    idle_load: float = setting(
        0.7, "load per core below which the next start skips the stagger; 0 = never skip it", low=0
    )
    first_check: float = setting(
        15.0, "seconds from the agent's start to the first check", low=0, restart=True
    )


def parallel_starts(chosen: int, cores: int) -> int:
    """How many starts may be under way; a chosen 0 means what suits the machine."""
    return chosen if chosen > 0 else 2 * max(cores, 1)


def for_reconnects(policy: StartPolicy) -> StartPolicy:
    """A reconnect begins no process: only the parallel limit and the login budget spread it."""
    return replace(policy, stagger=0.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that wants to start."""

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
        """One that was taken and not needed."""
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
    """Starts that have begun and come to nothing yet (neither ready nor failed)."""
    last_begun: float | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """`admitted` may start now; the next one must ask again at `ask_again`."""

    admitted: tuple[InstanceId, ...]
    gate: Gate
    ask_again: float | None


def restore_order(candidates: Iterable[Candidate]) -> list[InstanceId]:
    ordered = sorted(candidates, key=lambda one: (-one.priority, -one.active_wall, one.id))
    return [one.id for one in ordered]


def admit(
    waiting: Sequence[InstanceId], gate: Gate, policy: StartPolicy, now: float, *, idle: bool
) -> Admission:
    """Let in as many of `waiting`, in their order, as may begin at `now`.

    `idle`: the machine has nothing else to do, so a start that is ready already releases
    the next one before its turn.
    """
    admitted: list[InstanceId] = []
    for instance in waiting:
        if (at := _earliest(gate, policy, now, idle=idle)) is None or at > now:
            return Admission(tuple(admitted), gate, at)
        bucket = gate.bucket.take(policy, now)
        if bucket is None:
            return Admission(tuple(admitted), gate, gate.bucket.next_at(policy, now))
        gate = Gate(bucket, gate.under_way + 1, now)
        admitted.append(instance)
    return Admission(tuple(admitted), gate, None)


def _earliest(gate: Gate, policy: StartPolicy, now: float, *, idle: bool) -> float | None:
    """When the next start may begin; None: when one under way has come to something."""
    if gate.under_way >= policy.parallel:
        return None
    if gate.last_begun is None or policy.stagger <= 0:
        return now
    if idle and gate.under_way == 0:
        return now
    # A clock that was set back must not hold the queue.
    return min(gate.last_begun, now) + policy.stagger
