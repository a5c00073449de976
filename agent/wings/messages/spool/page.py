"""What a spool keeps at most, and what it gives to a reader at once."""

from dataclasses import dataclass
from typing import Any

MOST_LINES = 4096
"""After so many a segment is full; one write adds as many at most."""


@dataclass(frozen=True, slots=True)
class Bounds:
    hours: float = 72.0
    megabytes: float = 256.0
    most: int = 100_000


@dataclass(frozen=True, slots=True)
class Page:
    records: list[dict[str, Any]]
    next: int
    """What to ask for after this page."""
    oldest: int
    newest: int
    """Cursors; `oldest` is beyond `newest` where nothing is kept."""

    @property
    def more(self) -> bool:
        return self.next < self.newest
