"""Records of the fleet in its store, and their keys below `wa/FLEET/`.

A value is JSON of 100 to 400 bytes. Fields at their defaults are left out, and unknown ones are
read over.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec

T = TypeVar("T")
TABLES = 1
"""Form of these records: a machine takes no part in a fleet whose form is newer."""


COPIED_LIVE = {"baileys": "session/creds.json", "sandbox": "session/sandbox.json"}
"""Engines whose files may be copied while they run: another machine may take their sessions."""


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One machine, as its own renewals write it. `agent`, `n` and `word` say which write it was."""

    agent: str = ""
    """Random for each begin of an agent."""
    n: int = 0
    """Number of this renewal of that agent."""
    word: str = ""
    """Random for each renewal: a twin cloned with its memory draws another one."""
    address: str = ""
    version: str = ""
    capacity: int = 0
    """Sessions that the machine has memory for; 0 if it is `closed`."""
    closed: bool = False
    """True if the machine's disk is full or closed: it has room for no session."""
    used: int = 0
    engines: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    """Names of the [[program]] tables of the machine's agent.toml."""
    drained: bool = False
    lost: bool = False
    """True if another machine saw this record stand still for a ttl: its sessions may be taken."""
    released: bool = False
    """True if the agent stopped in order, after its last worker had ended."""
    lacks: dict[str, str] = {}
    """Session of the machine that is not as it should be there → why; some of them."""
    forgotten: bool = False
    """True if an operator has switched the machine off for good."""
    key: str = ""
    """Mark of the machine's fleet.key; "" = it makes and takes no copies."""


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    machine: str
    epoch: int
    """Fencing token: one more at each change of owner."""
    engine: str = ""
    failover: str = "newest"
    """Another machine takes it over with the newest copy. `wait`: it ends with its machine's lease,
    and waits for that machine."""
    wanted: str = "running"
    copies: tuple[str, ...] = ()
    """Machines whose copy is in sync: they may take the session over."""
    deleted: bool = False
    program: str = ""
    """Name of the [[program]] that runs as the session; "" = the engine needs none."""

    def taken_by(self, name: str) -> "Session":
        left = tuple(it for it in self.copies if it != name)
        return msgspec.structs.replace(self, machine=name, epoch=self.epoch + 1, copies=left)


class Halt(msgspec.Struct, frozen=True):
    """The store went back: no session starts or changes its machine until an operator accepts."""

    by: str
    why: str
    id: str


Held = tuple[int, int, int]
"""Epoch of a session's files on a machine; 1 if it runs there, -1 if it was deleted and they are
none; number of its last change."""


class Claim(msgspec.Struct, frozen=True):
    """Sessions whose files a machine has under a halt."""

    halt: str
    sessions: Mapping[str, Held]


class Fleet(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times that all machines of a fleet share; the first that joins writes it."""

    ttl: float = 20.0
    """Seconds without a renewal after which another machine takes the sessions."""
    margin: float = 4.0
    """Seconds before the end of `ttl` at which a machine disconnects its sessions."""
    tables: int = TABLES

    @property
    def usable(self) -> float:
        """Seconds that a machine may run its sessions after the begin of a renewal."""
        return self.ttl - self.margin

    @property
    def renew_every(self) -> float:
        return self.ttl / 6


class Keys:
    """Keys of one fleet. Those of many records end with "/"."""

    def __init__(self, fleet: str) -> None:
        self.all = f"wa/{fleet}/"
        self.machines, self.sessions = f"{self.all}machine/", f"{self.all}session/"
        self.halt, self.common, self.claims = (self.all + it for it in ("halt", "fleet", "claim/"))

    def machine(self, name: str) -> str:
        return self.machines + name

    def session(self, id: str) -> str:
        return self.sessions + id


encoded = msgspec.json.encode


def decoded(value: bytes, kind: type[T]) -> T | None:
    """Return a record; None if it cannot be read: a person may put anything into the store."""
    with suppress(msgspec.MsgspecError, RecursionError):
        return msgspec.json.decode(value, type=kind)
    return None


def named(key: str) -> str:
    """Return the name or id at the end of a key."""
    return key.rpartition("/")[2]
