"""What supervision asks of the configuration: policies, all workers' memory, whether the machine is
idle."""

import os
import time
from dataclasses import dataclass, field, replace

from agent.config.config import Config
from agent.core.admission import StartPolicy
from agent.core.findings.memory import memory_budget
from agent.core.health.policy import HealthPolicy
from agent.host.machine.memory import machine_memory
from agent.supervise.facts import Facts
from agent.supervise.worker_limits import memory_limit, memory_wall

REMOTE_STARTS = 50
"""Simultaneous starts of sessions on backends, which start no process here."""
IDLE_LOAD = 0.7
"""Load per core below which the next start skips the stagger."""


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
        return replace(self.start_policy(), stagger=0.0, parallel=REMOTE_STARTS)

    def memory_wall(self, facts: Facts) -> int:
        return memory_wall(self.config, facts)

    def memory_limit(self, facts: Facts) -> int:
        return memory_limit(self.config, facts)

    def memory_budget(self) -> int:
        return memory_budget(self._machine, self.config.memory)

    def machine_is_idle(self) -> bool:
        return os.getloadavg()[0] / (os.cpu_count() or 1) < IDLE_LOAD
