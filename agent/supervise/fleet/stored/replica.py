"""How far the stored copy of one session is."""

import asyncio
from dataclasses import dataclass, field, replace

from agent.fleet.copies.take import LARGEST, Seen

MOST_CHANGES = 200
"""After a whole copy, before the next one."""

Mark = tuple[object, ...]
"""Tells whether a session is as it was when it was copied."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A whole copy, and the changes that are stored after it."""

    seen: Seen
    number: int
    """Of the newest."""
    whole: int
    """Bytes of the copy."""
    more: int = 0
    """Bytes of the changes."""
    changes: int = 0

    @property
    def goes_on(self) -> bool:
        """Until it costs as much to read as a new copy costs to write."""
        return self.changes < MOST_CHANGES and self.more < self.whole

    def takes(self, size: int) -> bool:
        """With a change of so many bytes it is no larger than a copy may be."""
        return self.whole + self.more + size <= LARGEST

    def with_one(self, seen: Seen, number: int, size: int) -> "Chain":
        return replace(
            self, seen=seen, number=number, more=self.more + size, changes=self.changes + 1
        )


@dataclass(slots=True, eq=False)
class Replica:
    """How far the stored copy of one session is. Times are of the boot clock."""

    epoch: int
    mark: Mark | None = None
    """Of what the stored copy holds; None = nothing was stored in this epoch by this agent."""
    stored_at: float | None = None
    size: int = 0
    seconds: float = 0.0
    """That the last one took, from the first file read to the answer."""
    changed_at: float | None = None
    """Since when it differs from its copy."""
    not_before: float = 0.0
    problem: str = ""
    """Why there is no newer one."""
    said: str = ""
    """The problem that is in the log."""
    failed: Mark | None = None
    """Of what could not be copied: tried again when it has changed, or after the longest pause."""
    refused: bool = False
    chain: "Chain | None" = None
    """What the next change follows; None: a whole copy comes next."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
