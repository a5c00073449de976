"""What the API needs of this machine's part in its fleet."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.core.model import Instance, InstanceId
from agent.core.view import InstanceView
from agent.fleet.coordinator import Coordinator, MachineRow
from agent.fleet.directory import Directory
from agent.fleet.peers import Peers


class FleetStatus(Protocol):
    @property
    def database_reachable(self) -> bool: ...
    @property
    def database_error(self) -> str: ...
    @property
    def database_since_wall(self) -> float: ...
    @property
    def lease_holds(self) -> bool: ...
    @property
    def lease_seconds(self) -> float: ...
    @property
    def lease_by(self) -> str:
        """renewal or promises; "" = it does not hold."""

    @property
    def halted(self) -> str: ...
    @property
    def settled(self) -> bool: ...
    @property
    def machines(self) -> Sequence[MachineRow]: ...
    @property
    def waiting(self) -> Sequence[tuple[str, str, str]]:
        """Sessions that should run and cannot: id, why, machine."""

    @property
    def moving(self) -> Sequence[tuple[str, str]]:
        """Planned moves under way: id, the next machine."""

    @property
    def apart(self) -> Mapping[str, str]:
        """By name, why another machine would not promise to wait for this one."""


class FleetFace(Protocol):
    @property
    def machine(self) -> str:
        """The name of this one."""

    @property
    def address(self) -> str: ...
    @property
    def bearer(self) -> str: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def coordinator(self) -> Coordinator:
        """For requests: a long answer must not hold up a renewal."""

    async def status(self) -> FleetStatus: ...

    def copy_behind(self, id: InstanceId) -> tuple[float, str]:
        """For how long the stored copy of this machine's session lacks a change, and why."""

    async def promise(self, machine: int, epoch: int, accepted: str) -> bool:
        """Another machine asks that this one does not take it over for a ttl; `accepted`: the
        accepted loss of records that it has heard of."""

    def would_promise(self, machine: int, epoch: int, accepted: str) -> bool:
        """Whether it would promise that now; nothing is promised."""

    async def move(self, id: InstanceId, to: str | None, why: str) -> str:
        """Begin a planned move of a session of this machine; the name of its next owner."""

    async def drain(self, name: str) -> None: ...

    async def undrain(self, name: str) -> None: ...

    async def forget(self, name: str) -> None: ...

    async def accept(self) -> None: ...

    async def leave(self) -> None: ...

    async def place(self, instance: Instance, on: str, labels: Mapping[str, str]) -> MachineRow:
        """The machine for a new session; Refused where none can run it."""

    async def create(
        self, instance: Instance, on: str, labels: Mapping[str, str], failover: str
    ) -> InstanceView:
        """Make a session on this machine, its row in the fleet's database first."""
