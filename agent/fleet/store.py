"""The fleet's store: the four calls that the fleet makes, and what they carry.

A key that ends with "/" means all keys below it. Each value has the revision of the write that
made it; a key that is absent has revision 0.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import TryLater


class StoreAway(TryLater):
    """The store gave no usable answer. Nothing was written, unless it is MayHaveHappened."""

    code = "fleet_store"


class MayHaveHappened(StoreAway):
    """A write was sent and not answered: it is committed, or may still be at any later moment.

    Never send it again. The next compare-and-swap on the same key says what became of it.
    """


@dataclass(frozen=True, slots=True)
class Pair:
    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Same:
    """True if `key` still has the value that `revision` wrote; 0: if it is absent."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Get:
    """`since`: only what this revision or a later one wrote."""

    key: str
    since: int = 0


Step = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Answer:
    committed: bool
    """True if every Same held; else nothing was written."""
    revision: int
    """Revision of the whole store, which is that of this write if it wrote."""
    cluster: str
    """Identity of the etcd cluster: another one after a restore under new addresses."""
    found: Sequence[Sequence[Pair]]
    """Answer to each Get, in their order."""


class Store(Protocol):
    """Every answer is linearizable. Each call raises StoreAway."""

    async def commit(
        self, same: Sequence[Same], then: Sequence[Step], otherwise: Sequence[Get] = ()
    ) -> Answer:
        """One transaction: `then` if every Same holds, else `otherwise`. MayHaveHappened if it was
        sent and not answered."""

    async def read(self, get: Get) -> Answer: ...

    def watch(self, key: str) -> AsyncIterator[Pair]:
        """Pairs as they are written from now on; one may be left out."""

    async def compact(self, revision: int) -> None:
        """Forget the older values of keys, as of this revision."""
