"""A host is the part of the machine that starts, stops and describes workers: `systemd` or
`process`. Nothing above this room knows which one it has."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from agent.core.model import InstanceId, UnitStatus

Wake = Callable[[InstanceId], None]
"""Called (in the event loop, never awaited) when something about a worker may have changed."""


class Host(Protocol):
    """Starts and stops workers. Every call succeeds or raises HostError, in bounded time."""

    name: str

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        """All workers that this host knows, running or failed, in one question to the machine."""

    async def status(self, instance: InstanceId) -> UnitStatus: ...

    async def start(self, instance: InstanceId) -> None:
        """Return when the worker said READY; raise HostError with the result otherwise. Starting a
        running worker does nothing."""

    async def stop(self, instance: InstanceId) -> None:
        """Return when no process of the worker is left."""

    async def restart(self, instance: InstanceId) -> None: ...

    async def reset_failed(self, instance: InstanceId) -> None: ...

    def limit_memory(self, instance: InstanceId, most: int) -> None:
        """Kill its worker above so many bytes where no unit does; 0 = no limit."""

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        """True when an operator enabled this worker with `systemctl enable`."""
        return False

    def link_path(self, instance: InstanceId) -> Path:
        """The Unix socket on which that worker listens."""

    def log_path(self, instance: InstanceId) -> Path | None:
        """The file of that worker's output; None where the journal has it."""

    def boot_id(self) -> str:
        """The name of this boot of the machine."""

    @property
    def connected(self) -> bool | None:
        """Whether the machine's manager answers; None where there is no connection to lose."""

    @property
    def jobs_pending(self) -> int:
        """Starts and stops that the machine has not finished yet."""

    async def agent_is_restarting(self) -> bool:
        """True only when the machine itself says that the agent is being restarted, not stopped."""
        return False

    async def missing_address(self) -> str:
        """HOST:PORT that the machine was to open for the agent and could not; "" = none."""
        return ""

    async def close(self, *, leave_workers: bool) -> None:
        """Close the connection to the machine. Live workers stay alive."""
