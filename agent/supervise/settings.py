"""What supervision asks of the configuration in force: policies, limits, what is idle enough."""

import os
import time
from dataclasses import dataclass, field, replace

from agent.config import Config
from agent.core.admission import StartPolicy
from agent.core.health import HealthPolicy
from agent.host.base import Limits
from agent.supervise.facts import Facts


@dataclass(slots=True)
class Settings:
    """The configuration in force; a reload replaces it as a whole."""

    config: Config
    read_wall: float = field(default_factory=time.time)
    refused: bool = False
    """It was to be read again since, and could not be."""

    def take(self, config: Config) -> None:
        self.config, self.read_wall, self.refused = config, time.time(), False

    def health_policy(self) -> HealthPolicy:
        return self.config.health_policy

    def start_policy(self) -> StartPolicy:
        chosen = self.config.start
        parallel = chosen.parallel or 2 * (os.cpu_count() or 1)
        # Without a stagger nobody wants starts to be spread: the login budget is for storms.
        policy = StartPolicy(stagger=chosen.stagger, parallel=parallel)
        return replace(policy, login_every=0.0) if chosen.stagger == 0 else policy

    def remote_start_policy(self) -> StartPolicy:
        """On a backend no process of ours begins; most starts find a session that is connected."""
        many = self.config.start.remote_parallel
        return StartPolicy(stagger=0.0, parallel=many, logins=many, login_every=1.0 / many)

    def limits(self, _facts: Facts) -> Limits:
        chosen = self.config.worker
        return Limits(
            memory_high=chosen.memory_high or None,
            memory_max=chosen.memory_max or None,
            tasks_max=chosen.tasks_max or None,
        )

    def memory_limit(self, facts: Facts) -> int:
        """An instance's own setting, else everybody's."""
        own = facts.instance.settings.get("memory_limit")
        return own if isinstance(own, int) and own >= 0 else self.config.memory.instance

    def machine_is_idle(self) -> bool:
        return os.getloadavg()[0] / (os.cpu_count() or 1) < self.config.start.idle_load
