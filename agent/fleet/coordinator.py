"""The rows that a machine gives to the fleet's database, and those that it gets from it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LOST = "its machine was lost"
"""Why a session is on its machine, where that took it over."""


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
    renewals: int = 0
    """The last number of its own that it heard."""
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
    rivals: Collection[int]
    alive: bool
    """By the database's clock, and not seen to be off: for showing, and for naming rivals; it
    allows no takeover."""
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
    number: int = field(default=0, compare=False)
    """Of the newest change, or of the copy where nothing changed since."""
    changes: Sequence[tuple[int, int, bytes]] = ()
    """What changed since: its number, that of what it follows, and the change."""


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """Of what goes with a session beside its files."""

    name: str
    epoch: int
    number: int
    """Of the write that brought it."""


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
