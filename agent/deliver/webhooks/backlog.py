"""How much of the journal waits for one webhook, counted as it happens; nothing of it is kept."""

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
        """All entries up to this cursor are counted, or were settled before."""

    def begin(self, cursor: int) -> None:
        """Everything up to there is settled."""
        self._counted, self.waiting, self.oldest_wall = cursor, 0, None

    def follows(self, entry: JournalEntry) -> bool:
        """Whether it is the next one: otherwise the journal must tell what lies between."""
        return entry.cursor == self._counted + 1

    def count(self, entry: JournalEntry) -> bool:
        """Whether one more waits."""
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
        # Of those that left the journal it is not known how many were counted: this one waits.
        self.waiting = max(self.waiting, 1)
        self.oldest_wall = entry.wall

    def settled(self) -> None:
        self.waiting = max(self.waiting - 1, 0)

    def lost(self, entries: int) -> None:
        """They left the journal; some of them may not have been wanted at all."""
        self.waiting = max(self.waiting - entries, 0)

    def caught_up(self, cursor: int) -> None:
        """Everything up to there is settled after all: nothing can wait but what came later."""
        if cursor >= self._counted:
            self.waiting = 0
