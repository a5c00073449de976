"""Memory: limits, leaks and plateaus, and which instance to free or restart."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.core import model, session, words
from agent.core.setting import setting

MIB = 1 << 20


def limit_fault(limit: int) -> str:
    if 0 < limit < words.LEAST_MEMORY:
        return f"{limit} is less than {words.LEAST_MEMORY}, the least that a worker needs"
    return ""


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    measure: bool = setting(
        True, "true = measure the memory of each instance; false = no check and no action"
    )
    interval: float = setting(300.0, "seconds between two measurements", low=1)
    instance: int = setting(
        500 * MIB, "bytes that one instance may use (sandbox: 64 MiB); 0 = no limit",
        low=0, check=limit_fault,
    )  # fmt: skip
    total: int = setting(
        2048 * MIB,
        "bytes that all instances may use together (unset, or set with machine_share:"
        " the larger of both); 0 = no limit",
        low=0,
    )
    machine_share: float = setting(
        0.8, "share of the machine's memory that all instances may use together", low=0, high=1
    )
    warn: float = setting(
        0.8, "share of its limit at which an instance frees its caches", low=0.1, high=1
    )
    critical: float = setting(
        0.95,
        "share of its limit at which the agent restarts an instance gracefully",
        low=0.1,
        high=1,
    )
    trend: float = 3600.0
    """Seconds of history that a leak check looks at."""
    least_growth: float = 0.1
    """Growth within trend that counts as a leak, as a share."""
    free_every: float = 600.0
    """Seconds between two requests to free caches, per instance."""
    restart_every: float = 1800.0
    """Seconds between two restarts for memory, per instance."""


def note_memory(
    history: session.Samples, used: int, policy: MemoryPolicy, now: float
) -> session.Samples:
    kept = tuple(sample for sample in history if now - policy.trend <= sample[0] < now)
    return (*kept[-239:], (now, used))


def level_of(used: int, limit: int, policy: MemoryPolicy) -> str:
    """Return critical, warn, or "" below both."""
    if limit <= 0:
        return ""
    if used >= limit * policy.critical:
        return "critical"
    return "warn" if used >= limit * policy.warn else ""


def memory_budget(machine: int, policy: MemoryPolicy) -> int:
    """Bytes for all instances together; 0 = no limit."""
    if policy.total <= 0:
        return 0
    return max(policy.total, int(machine * policy.machine_share))


def lacks_room(limits: int, count: int, new: int, budget: int) -> str:
    """Why one more instance does not fit beside `count` others; "" when it does. Limits count, not
    present use."""
    if budget <= 0 or new <= 0 or limits + new <= budget:
        return ""
    here = f"{count} may use {limits / MIB:.0f} MiB, this one {new / MIB:.0f} MiB"
    most = f"all together {budget / MIB:.0f} MiB ([memory] total, machine_share)"
    return f"too little memory for one more worker: {here}, {most}"


def leaks(history: session.Samples, policy: MemoryPolicy, now: float) -> bool:
    """True if memory grew through a whole trend. A rise that came to rest is a plateau, no leak."""
    quarter = policy.trend / 4
    parts: list[list[int]] = [[], [], [], []]
    for at, used in history:
        age = now - at
        if 0 <= age < policy.trend:
            parts[3 - int(age // quarter)].append(used)
    if not all(parts):
        return False
    # Floors, not means: what stays after each collection is what leaks.
    levels = [min(part) for part in parts]
    steps = [after - before for before, after in pairwise(levels)]
    growth = levels[3] - levels[0]
    if growth < max(levels[0] * policy.least_growth, 8 * MIB):
        return False
    # At rest: the last quarter adds little of what even growth would.
    return min(steps) > 0 and steps[2] >= 0.4 * growth / 3


def judge_memory(
    history: session.Samples, used: int, limit: int, policy: MemoryPolicy, now: float
) -> model.Signal | None:
    level = level_of(used, limit, policy)
    share = f"{used / MIB:.0f} of {limit / MIB:.0f} MiB"
    if level == "critical":
        return model.Signal("memory_critical", model.Health.DEGRADED, f"memory critical: {share}")
    if leaks(history, policy, now):
        grown = (used - history[0][1]) / MIB
        text = f"memory grew by {grown:.0f} MiB in {policy.trend / 60:.0f} min and goes on: a leak?"
        return model.Signal("memory_leak", model.Health.DEGRADED, text)
    if level == "warn":
        return model.Signal("memory_high", model.Health.DEGRADED, f"memory high: {share}")
    return None


def decide_memory(
    sessions: Sequence[session.Session],
    restartable: Collection[model.InstanceId],
    budget: int,
    policy: MemoryPolicy,
    now: float,
) -> tuple[dict[model.InstanceId, str], model.InstanceId | None]:
    """Why each of these should have more room, and which one of them is to restart; the others are
    to free their caches. At most one restarts: first one over its own limit; when all together use
    too much, the largest. `restartable`: connected and settled, so that a restart costs seconds,
    not a login in the middle of a sync."""
    used = {each.id: each.run.memory_bytes or 0 for each in sessions}
    limits = {each.id: each.memory_limit for each in sessions}
    together = level_of(sum(used.values()), budget, policy)
    levels = {id: level_of(used[id], limits[id], policy) for id in used}
    settled = (each for each in sessions if each.id in restartable)
    able = [it.id for it in settled if _due(it.memory_restart_at, policy.restart_every, now)]
    over = [id for id in able if levels[id] == "critical"]
    worst = max(over, key=lambda id: used[id] / limits[id], default=None)
    if worst is None and together == "critical":
        worst = max(able, key=used.__getitem__, default=None)
    reasons = {}
    for each in sessions:
        level, mib = levels[each.id], f"{used[each.id] / MIB:.0f}"
        if each.id != worst and not _due(each.freed_at, policy.free_every, now):
            continue
        if level:
            reasons[each.id] = f"memory {level}: {mib} of {limits[each.id] / MIB:.0f} MiB"
        elif together:
            reasons[each.id] = f"memory of all together {together}; this one uses {mib} MiB"
    return reasons, worst


def _due(at: float | None, pause: float, now: float) -> bool:
    # A time in the future comes from a clock that jumped: ignore it.
    return at is None or not 0 <= now - at < pause
