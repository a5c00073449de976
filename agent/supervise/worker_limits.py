"""How much memory a worker may have: the limit below which the agent frees caches and restarts it,
and the wall behind that, at which the host kills it."""

from agent.config.config import Config
from agent.core.packs import MEMORY
from agent.core.words import BEHIND
from agent.engines.catalog import entry_of
from agent.supervise.facts import Facts


def memory_wall(config: Config, facts: Facts) -> int:
    """Bytes at which a host without units kills it, 0 = none: more than memory_max where its own
    setting grants more."""
    wall, own = config.worker.memory_max, _own_limit(facts)
    return 0 if wall == 0 or own == 0 else max(wall, int((own or 0) * BEHIND))


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
    return own if isinstance(own, int) and own >= 0 else None
