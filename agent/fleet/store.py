"""The fleet's store: what its calls carry. `etcd.py` makes them.

A key that ends with "/" means all keys below it. Each value has the revision of the write that
made it; a key that is absent has revision 0.
"""

from collections.abc import Sequence

from msgspec import Struct

from agent.errors import TryLater


class StoreAway(TryLater):
    """The store gave no usable answer. Nothing was written, unless it is MayHaveHappened."""

    code = "fleet_store"


class MayHaveHappened(StoreAway):
    """A write was sent and not answered: it is committed, or may still be at any later moment.

    Never send it again. The next compare-and-swap on the same key says what became of it.
    """


class Pair(Struct, frozen=True):
    key: str
    value: bytes
    revision: int


class Same(Struct, frozen=True):
    """True if `key` still has the value that `revision` wrote; 0: if it is absent. With a `value`,
    which one write alone makes: if it has that. A store that went back repeats revisions."""

    key: str
    revision: int
    value: bytes = b""


class Put(Struct, frozen=True):
    key: str
    value: bytes


class Delete(Struct, frozen=True):
    key: str


class Get(Struct, frozen=True):
    """`since`: only what this revision or a later one wrote."""

    key: str
    since: int = 0


Step = Put | Delete | Get


class Answer(Struct, frozen=True):
    committed: bool
    """True if every Same held; else nothing was written."""
    revision: int
    """Revision of the whole store, which is that of this write if it wrote."""
    cluster: str
    """Identity of the etcd cluster: another one after a restore under new addresses."""
    found: Sequence[Sequence[Pair]]
    """Answer to each Get, in their order."""
