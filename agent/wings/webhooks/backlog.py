"""Counts the entries of the journal that wait for one webhook, without keeping them."""

from collections.abc import Callable

from agent.core.model import JournalEntry
from agent.store.database import Store

PAGE = 100


class Backlog:
    def __init__(self, wanted: Callable[[JournalEntry], bool]) -> None:
        self.waiting = 0
        self.oldest_wall: float | None = None
        """Time of the next entry; None while no entry waits."""
        self._wanted = wanted
        self._counted = 0
        """All entries up to this cursor are counted or settled."""

    def begin(self, cursor: int) -> None:
        """All entries up to the cursor are settled."""
        self._counted, self.waiting, self.oldest_wall = cursor, 0, None

    def follows(self, entry: JournalEntry) -> bool:
        """Whether it is the next entry; otherwise entries between must be read from the journal."""
        return entry.cursor == self._counted + 1

    def count(self, entry: JournalEntry) -> bool:
        """Whether the entry waits now."""
        if entry.cursor <= self._counted:
            return False
        self._counted = entry.cursor
        if not self._wanted(entry):
            return False
        if not self.waiting:
            self.oldest_wall = entry.wall
        self.waiting += 1
        return True

    async def count_ahead(self, store: Store) -> None:
        """Count to the journal's end, also while nothing can be sent."""
        while True:
            page = await store.history(after=self._counted, limit=PAGE)
            for entry in page:
                self.count(entry)
            if len(page) < PAGE:
                return

    def is_next(self, entry: JournalEntry) -> None:
        # Entries that left the journal may have been counted too: at least this one waits.
        self.waiting = max(self.waiting, 1)
        self.oldest_wall = entry.wall

    def settled(self) -> None:
        self.waiting = max(self.waiting - 1, 0)

    def lost(self, entries: int) -> None:
        """They left the journal; the webhook did not want all of them."""
        self.waiting = max(self.waiting - entries, 0)

    def caught_up(self, cursor: int) -> None:
        """All entries up to the cursor are settled."""
        if cursor >= self._counted:
            self.waiting = 0
