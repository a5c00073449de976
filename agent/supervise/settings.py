"""What supervision asks of the configuration: policies, limits, whether the machine is idle."""

import os
import time
from dataclasses import dataclass, field, replace

from agent.config import Config
from agent.core.admission import StartPolicy
from agent.core.findings.memory import memory_budget
from agent.core.health.policy import HealthPolicy
from agent.core.packs import MEMORY
from agent.core.words import LEAST_MEMORY
from agent.engines.catalog import entry_of
from agent.host.base import Limits
from agent.host.machine.memory import machine_memory
from agent.supervise.facts import Facts

BEHIND = 1.25
"""The host kills a worker at so many times its allowance: the gentle steps come first."""


@dataclass(slots=True)
class Settings:
    """The configuration in force; a reload replaces it as a whole."""

    config: Config
    read_wall: float = field(default_factory=time.time)
    refused: bool = False
    """The last reload failed: the file could not be read."""
    _machine: int = field(default_factory=lambda: machine_memory().total)

    def take(self, config: Config) -> None:
        self.config, self.read_wall, self.refused = config, time.time(), False

    def health_policy(self) -> HealthPolicy:
        return self.config.health_policy

    def start_policy(self) -> StartPolicy:
        return self.config.start_policy(os.cpu_count() or 1)

    def remote_start_policy(self) -> StartPolicy:
        """A start on a backend begins no process here; the budget of logins is the machine's."""
        parallel = self.config.start.remote_parallel
        return replace(self.start_policy(), stagger=0.0, parallel=parallel)

    def limits(self, facts: Facts) -> Limits:
        """The limits that the host sets; more than memory_max where its own setting grants more."""
        chosen = self.config.worker
        own = _own_limit(facts)

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

    def memory_limit(self, facts: Facts) -> int:
        """Bytes, 0 = no limit: its own setting, else `[memory] instance`."""
        if facts.instance.backend:
            return 0  # it has no process of its own here
        own = _own_limit(facts)
        if own is not None:
            return own
        joins = not facts.unit.runs and self.config.worker.pack > 1
        if facts.pack or (joins and entry_of(facts.instance.engine).packable):
            return min(self.config.memory.instance or MEMORY, MEMORY)
        # Never promise more than memory_max: the host kills the worker there.
        walls = (self.config.worker.memory_max, entry_of(facts.instance.engine).memory)
        shared = self.config.memory.instance
        return shared and min((shared, *(wall for wall in walls if wall)))

    def memory_budget(self) -> int:
        return memory_budget(self._machine, self.config.memory)

    def machine_is_idle(self) -> bool:
        return os.getloadavg()[0] / (os.cpu_count() or 1) < self.config.start.idle_load


def _own_limit(facts: Facts) -> int | None:
    own = facts.instance.settings.get("memory_limit")
    if not isinstance(own, int) or own < 0:
        return None
    return own and max(own, LEAST_MEMORY)  # an older version accepted less than a worker needs
