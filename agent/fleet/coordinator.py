"""What a machine asks of the fleet's database. Each call is one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.fleet.waiting import CommandRow, Notice, ViewRow


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says of itself when it joins."""

    name: str
    installation: str
    """A UUID on its disk: a machine made new under an old name is another one."""
    place: str = ""
    """Names the boot and the path of its folder: a copy of the whole machine has another."""
    folder: str = ""
    """Names its folder on the disk: a copy of its container has another."""
    address: str = ""
    """Where other machines reach its API."""
    capacity: int = 100
    labels: Mapping[str, str] = field(default_factory=dict)
    engines: frozenset[str] = frozenset()
    version: str = ""
    key_fingerprint: str = ""
    """The fleet keeps the first one, and refuses a machine that has another."""


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    epoch: int
    renewals: int
    place: str = ""
    folder: str = ""
    """Of its machine, as this."""
    losses: int = 0
    """Accepted losses of records that it has heard of."""


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
    seconds_since_renewal: float | None
    """None: it never renewed."""


@dataclass(frozen=True, slots=True)
class Renewal:
    accepted: bool
    """False: the machine was taken over, and `epoch` is its new one; or a later renewal of it
    arrived before."""
    epoch: int
    renewals: Mapping[int, int]
    """Every machine's number, by its id."""
    alive: frozenset[int]
    generation: int
    """Rises with each change of an owner; one that fell means that records were lost."""
    changes: int
    """Rises with each change of what this machine owns."""
    settled: bool
    """Whether the database runs for a ttl, by its own clock, which may jump."""
    halted: str
    """Why no owner changes until an operator accepts it; "" = they may."""
    commands: bool
    """Commands wait for this machine."""
    server: str
    """Another one after each start of the database, failover, and accepted loss of records."""
    losses: int = 0
    """Losses of records that operators accepted."""
    told: bool = True
    """While the fleet is halted: the machine told what it runs."""
    asked: int = 0
    """The highest of this machine's own numbers of its renewals that the database has seen."""

    @property
    def accepted_loss(self) -> str:
        """Names the last one that was accepted: the second word of `server`."""
        return "".join(self.server.split()[1:2])


@dataclass(frozen=True, slots=True)
class Owned:
    """A session that this machine runs."""

    id: str
    epoch: int
    engine: str
    wanted: str
    failover: str
    labels: Mapping[str, str]
    only_on: str
    settings: Mapping[str, Any]
    generation: int = field(default=0, compare=False)
    """Of the fleet, at the last change of its row."""
    copy: int = field(default=0, compare=False)
    """The number of its stored copy; 0: none, or not counted."""


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
class Held:
    """A session that a machine has, as it tells it after a loss of records."""

    session: NewSession
    epoch: int
    generation: int
    """In which it heard last that it owns the session."""
    as_ordered: bool = True
    """False: its labels and its failover are not known here."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest copy of a session's files."""

    epoch: int
    packed: bytes


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as every machine sees it. Times are seconds since 1970 by the database's clock."""

    id: str
    machine: int
    epoch: int
    engine: str
    wanted: str
    failover: str
    labels: Mapping[str, str]
    only_on: str
    why: str
    """Why it is on this machine."""
    moved_at: float
    copy_at: float | None
    copy_bytes: int | None


@dataclass(frozen=True, slots=True)
class DirectoryChanges:
    generation: int
    """What the next call asks from."""
    whole: bool
    """These are all sessions, whatever was read before."""
    sessions: Sequence[SessionRow]
    deleted: frozenset[str]


class Coordinator(Protocol):
    async def join(self, machine: Machine) -> Member: ...

    async def leave(self, member: Member, sessions: Collection[str]) -> bool:
        """Take the machine and its sessions out; False: it owns others, or has another epoch."""

    async def renew(
        self, member: Member, rivals: frozenset[int], generation: int, asked: int = 0
    ) -> Renewal:
        """Not accepted either: one whose number is not above that of every earlier one."""
        ...

    async def machines(self) -> Sequence[MachineRow]: ...

    async def set_drained(self, name: str, drained: bool) -> bool:
        """False: no machine has this name."""

    async def set_capacity(self, member: Member, capacity: int) -> None:
        """How many sessions the machine takes until it says otherwise or joins again."""

    async def owned(self, member: Member) -> Sequence[Owned]: ...

    async def create(self, member: Member, session: NewSession, machine: int) -> bool:
        """False: the id is taken."""

    async def register(self, member: Member, sessions: Sequence[NewSession]) -> Sequence[str]:
        """Bring sessions into the fleet; the ids that others own: none was registered then."""

    async def update(
        self,
        member: Member,
        session: str,
        epoch: int,
        *,
        wanted: str | None = None,
        settings: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        failover: str | None = None,
    ) -> bool:
        """None leaves a value as it is. False: the session has another owner or epoch."""

    async def delete(self, member: Member, session: str, epoch: int) -> bool:
        """False: the session has another owner or epoch."""

    async def deleted_in(self, session: str) -> int | None:
        """The generation of its deletion; None: it is there, or was deleted long ago."""

    async def tell(
        self, member: Member, held: Sequence[Held], deleted: Mapping[str, int]
    ) -> Collection[str]:
        """After a loss; `deleted` by generation. The ids of `held` that it owns as it told."""

    async def take_over(
        self, member: Member, peer: int, epoch: int, renewals: int, to: Mapping[str, int]
    ) -> bool:
        """Give `peer`'s sessions to machines, all in one; False: it did not happen."""

    async def movable(self, peer: int) -> Sequence[NewSession]:
        """The sessions of a machine that may move without it: `newest`, and a copy is stored."""

    async def hand_over(self, member: Member, session: str, to: int, why: str) -> bool:
        """A planned move of a stopped session; False: it did not happen."""

    async def store_copy(
        self, member: Member, session: str, epoch: int, packed: bytes, number: int | None = None
    ) -> bool:
        """False: not written, as the session has a newer epoch, or its stored copy that number."""

    async def stored(self, session: str) -> Stored | None: ...

    async def lock(self, what: str) -> bool:
        """For one machine at a time; False: another one has it. A lost connection ends it."""

    async def unlock(self, what: str) -> None: ...

    async def directory(self, since: int = -1) -> DirectoryChanges:
        """After the generation `since`; -1: everything. `session` tells newer ages of copies."""

    async def session(self, id: str) -> SessionRow | None: ...

    async def publish(self, member: Member, views: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the newest view of each session that this machine owns."""

    async def views(
        self, ids: Collection[str] | None = None, machine: int | None = None
    ) -> Sequence[ViewRow]:
        """Of these sessions, or of those that the machine owns; of all without both."""

    async def add_command(
        self,
        id: str,
        session: str,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        idempotency_key: str,
        asked_by: str,
    ) -> CommandRow:
        """The command as it is kept: an earlier one, if it was the same under the same key."""

    async def take_commands(
        self, member: Member, limit: int, known: Collection[str] | None = None
    ) -> Sequence[CommandRow]:
        """The oldest for this machine: begun, so that no other gets them; and begun ones that
        `known` lacks, as their answer was lost."""

    async def end_command(
        self, member: Member, id: str, outcome: str, answer: Mapping[str, Any]
    ) -> bool:
        """False: this machine did not take it, or it ended before."""

    async def command(self, id: str) -> CommandRow | None: ...

    async def listen(self, on_notify: Callable[[Notice], None]) -> None:
        """Until it is cancelled, on a connection of its own."""

    async def forget(self, member: Member, machine: int) -> None:
        """It is dead, an operator says: it may be taken over; without sessions it goes off the
        list. One that lives joins again."""

    async def accept(self) -> None:
        """An operator accepts lost records. TryLater: a living machine did not tell."""

    async def schema(self) -> tuple[int, int]:
        """The version of the tables, and the oldest program that may use them."""

    async def key_fingerprint(self) -> str: ...

    async def close(self) -> None: ...
