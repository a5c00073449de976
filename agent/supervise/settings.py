"""What supervision asks of the configuration: policies, all workers' memory, whether the machine is
idle."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.config.config import Config
from agent.core.admission import StartPolicy
from agent.core.memory import memory_budget
from agent.core.words import BEHIND, InstanceId
from agent.engines.catalog import entry_of
from agent.host.machine import machine_memory
from agent.supervise.facts import Facts


def _own_limit(facts: Facts) -> int | None:
    own = facts.instance.settings.get("memory_limit")
    return own if isinstance(own, int) and own >= 0 else None


REMOTE_STARTS = 50
"""Simultaneous starts of sessions on backends, which start no process here."""


@dataclass(slots=True)
class Settings:
    """The configuration in force; a reload replaces it as a whole."""

    config: Config
    read_wall: float = field(default_factory=time.time)
    refused: bool = False
    """The last reload failed: the file could not be read."""
    _machine: int = field(default_factory=lambda: machine_memory()[0])

    def take(self, config: Config) -> None:
        self.config, self.read_wall, self.refused = config, time.time(), False

    def start_policy(self) -> StartPolicy:
        return self.config.start_policy(os.cpu_count() or 1)

    def remote_start_policy(self) -> StartPolicy:
        """A start on a backend begins no process here; the budget of logins is the machine's."""
        return replace(self.start_policy(), stagger=0.0, parallel=REMOTE_STARTS)

    def memory_wall(self, facts: Facts) -> int:
        """Bytes at which a host without units kills it, 0 = none: more than memory_max where its
        own setting grants more."""
        wall, own = self.config.worker.memory_max, _own_limit(facts)
        return 0 if wall == 0 or own == 0 else max(wall, int((own or 0) * BEHIND))

    def memory_limit(self, facts: Facts) -> int:
        """Bytes, 0 = no limit: its own setting, else `[memory] instance`."""
        if facts.instance.backend:
            return 0  # it has no process of its own here
        config, own, kind = self.config, _own_limit(facts), entry_of(facts.instance.engine)
        if own is not None:
            return own
        joins = not facts.unit.runs and config.worker.pack > 1 and kind.packable
        if facts.pack or joins:
            return min(config.memory.instance or MEMORY, MEMORY)
        # Never promise more than memory_max: the host kills the worker there.
        walls, shared = (config.worker.memory_max, kind.memory), config.memory.instance
        return shared and min((shared, *(wall for wall in walls if wall)))

    def memory_budget(self) -> int:
        return memory_budget(self._machine, self.config.memory)


MEMORY = 96 << 20
"""Bytes counted for one session of a pack: its worker, and its part of the shared process."""


def choose_pack(places: Mapping[InstanceId, str], id: InstanceId, engine: str, size: int) -> str:
    """The pack of a session that starts; "" = a process of its own. `places`: the packs of all
    sessions. A session keeps its pack while that is not too full."""
    if size <= 1:
        return ""
    counts = Counter(name for other, name in places.items() if other != id)
    own = places.get(id, "")
    if own and counts[own] < size:
        return own
    number = 1
    while counts[f"{engine}-{number}"] >= size:
        number += 1
    return f"{engine}-{number}"
