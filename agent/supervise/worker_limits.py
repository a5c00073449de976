"""How much memory, and how many tasks, a worker may have: MemoryHigh, MemoryMax and TasksMax of its
unit, and the allowance at which the agent frees and restarts before the host kills."""

from agent.config import Config
from agent.core.packs import MEMORY
from agent.core.words import LEAST_MEMORY
from agent.engines.catalog import entry_of
from agent.host.base import Limits
from agent.supervise.facts import Facts

BEHIND = 1.25
"""The host kills a worker at so many times its allowance: the gentle steps come first."""


def host_limits(config: Config, facts: Facts) -> Limits:
    """The limits that the host sets; more than memory_max where its own setting grants more."""
    chosen, own = config.worker, _own_limit(facts)

    def wall(limit: int, least: float) -> int | None:
        if limit == 0:
            return None
        # 0 takes away a limit that was set before.
        return 0 if own == 0 else max(limit, int(least))

    return Limits(
        memory_high=wall(chosen.memory_high, own or 0),
        memory_max=wall(chosen.memory_max, (own or 0) * BEHIND),
        tasks_max=chosen.tasks_max or None,
    )


def memory_limit(config: Config, facts: Facts) -> int:
    """Bytes, 0 = no limit: its own setting, else `[memory] instance`."""
    if facts.instance.backend:
        return 0  # it has no process of its own here
    own = _own_limit(facts)
    if own is not None:
        return own
    joins = not facts.unit.runs and config.worker.pack > 1
    if facts.pack or (joins and entry_of(facts.instance.engine).packable):
        return min(config.memory.instance or MEMORY, MEMORY)
    # Never promise more than memory_max: the host kills the worker there.
    walls = (config.worker.memory_max, entry_of(facts.instance.engine).memory)
    shared = config.memory.instance
    return shared and min((shared, *(wall for wall in walls if wall)))


def _own_limit(facts: Facts) -> int | None:
    own = facts.instance.settings.get("memory_limit")
    if not isinstance(own, int) or own < 0:
        return None
    return own and max(own, LEAST_MEMORY)  # an older version accepted less than a worker needs
