"""The host as a worker's life needs it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from agent.config.sections import WorkerSection
from agent.core.model import InstanceId
from agent.host.process.child import Child


class Pings(Protocol):
    def pinged(self, pid: int) -> float:
        """When this pid last sent a watchdog ping, on the loop's clock."""

    def is_reached(self) -> bool:
        """Whether pings can arrive now."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    settings: WorkerSection
    launch: Callable[[InstanceId, str], Awaitable[Child]]
    """Start a process for this run; HostError when there is none."""
    sweep: Callable[[Child, str], Awaitable[int]]
    """Kill the remaining processes of this run."""
    pings: Pings
    changed: Callable[[Any], None]
    """Called with the worker when its phase changes."""
