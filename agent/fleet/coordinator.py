"""What a machine asks of the fleet's database. Each call is one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says of itself when it joins."""

    name: str
    installation: str
    """A UUID on its disk: a machine made new under an old name is another one."""
    address: str = ""
    """Where other machines reach its API."""
    capacity: int = 100
    labels: Mapping[str, str] = field(default_factory=dict)
    engines: frozenset[str] = frozenset()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    epoch: int
    renewals: int


@dataclass(frozen=True, slots=True)
class MachineRow:
    id: int
    name: str
    epoch: int
    renewals: int
    rivals: frozenset[int]
    alive: bool
    """By the database's clock: for showing, and for naming rivals; it allows no takeover."""
    address: str
    capacity: int
    sessions: int
    labels: Mapping[str, str]
    engines: Sequence[str]
    drained: bool
    version: str


@dataclass(frozen=True, slots=True)
class Renewal:
    accepted: bool
    """False: the machine was taken over, and `epoch` is its new one."""
    epoch: int
    renewals: Mapping[int, int]
    """Every machine's number, by its id."""
    alive: frozenset[int]
    generation: int
    """Rises with each change of an owner; one that fell means that records were lost."""
    changes: int
    """Rises with each change of what this machine owns."""
    settled: bool
    """False while the database runs for less than a ttl: nothing is started or taken over."""
    halted: str
    """Why no owner changes until an operator accepts it; "" = they may."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A session that this machine runs."""

    id: str
    epoch: int
    engine: str
    wanted: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewSession:
    id: str
    engine: str
    wanted: str = "running"
    failover: str = "newest"
    labels: Mapping[str, str] = field(default_factory=dict)
    only_on: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest copy of a session's files."""

    epoch: int
    packed: bytes


class Coordinator(Protocol):
    async def join(self, machine: Machine) -> Member: ...

    async def renew(self, member: Member, rivals: frozenset[int], generation: int) -> Renewal: ...

    async def machines(self) -> Sequence[MachineRow]: ...

    async def owned(self, member: Member) -> Sequence[Owned]: ...

    async def create(self, member: Member, session: NewSession, machine: int) -> bool:
        """False: the id is taken."""

    async def take_over(
        self, member: Member, peer: int, epoch: int, renewals: int, to: Mapping[str, int]
    ) -> bool:
        """Give `peer`'s sessions to machines, all in one; False: it did not happen."""

    async def movable(self, peer: int) -> Sequence[NewSession]:
        """The sessions of a machine that may move without it: `newest`, and a copy is stored."""

    async def hand_over(self, member: Member, session: str, to: int, why: str) -> bool:
        """A planned move of a stopped session; False: it did not happen."""

    async def store_copy(self, member: Member, session: str, epoch: int, packed: bytes) -> bool:
        """False: the session has a newer epoch, and the copy was not written."""

    async def stored(self, session: str) -> Stored | None: ...

    async def lock(self, what: str) -> bool:
        """For what one machine at a time may do; False: another one does it. A lost connection
        ends it."""

    async def unlock(self, what: str) -> None: ...

    async def forget(self, member: Member, machine: int) -> None:
        """An operator says that the machine is dead: it may be taken over."""

    async def accept(self) -> None:
        """An operator accepts that the database lost records."""

    async def close(self) -> None: ...
