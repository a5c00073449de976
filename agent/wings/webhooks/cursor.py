"""The cursor of a webhook, and the entries that its target refused for good, in the database. The
entries themselves stay in the journal."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

from agent.core.model import JournalEntry
from agent.store.database import Store
from agent.wings.webhooks.deliveries import DeadLetter

MOST_DEAD = 500
"""Dead letters of one webhook; beyond them the oldest is forgotten."""
_CURSOR, _DEAD = "webhook.", "webhook_dead."


class WebhookCursor:
    """One webhook's cursor and its dead letters; a change is on the disk when its method ends."""

    def __init__(
        self, store: Store, name: str, cursor: int, dead: Mapping[int, DeadLetter]
    ) -> None:
        self.cursor = cursor
        """All entries up to this one are settled."""
        self.dead = dict(dead)
        """By cursor, oldest first."""
        self._store = store
        self._name = name
        self._saved = cursor

    @classmethod
    async def find(cls, store: Store, name: str) -> "WebhookCursor | None":
        """None for a new name."""
        text = await store.get_fact(_CURSOR + name)
        if text is None:
            return None
        facts = await store.get_facts(f"{_DEAD}{name}.")
        letters = [DeadLetter(**json.loads(fact)) for fact in facts.values()]
        letters.sort(key=lambda letter: letter.cursor)
        return cls(store, name, int(text), {letter.cursor: letter for letter in letters})

    @classmethod
    async def begin(cls, store: Store, name: str, cursor: int) -> "WebhookCursor":
        progress = cls(store, name, cursor, {})
        await store.put_fact(_CURSOR + name, str(cursor))
        return progress

    @property
    def unsaved(self) -> int:
        """Entries that are sent again after a crash."""
        return self.cursor - self._saved

    async def save(self) -> None:
        cursor = self.cursor
        if cursor != self._saved:
            await self._store.put_fact(_CURSOR + self._name, str(cursor))
            self._saved = cursor

    async def put_aside(self, entry: JournalEntry, problem: str) -> None:
        """Write the letter and the cursor behind it in one step: never lost, never twice."""
        letter = DeadLetter(
            entry.cursor, entry.kind, entry.instance, entry.wall, problem, time.time()
        )
        fact = {self._fact(letter.cursor): json.dumps(asdict(letter))}
        cursor = max(self.cursor, letter.cursor)
        await self._store.put_facts({**fact, _CURSOR + self._name: str(cursor)})
        self.cursor = self._saved = cursor
        self.dead[letter.cursor] = letter
        if len(self.dead) > MOST_DEAD:
            await self.forget(min(self.dead))

    async def forget(self, cursor: int) -> None:
        await self._store.forget_facts([self._fact(cursor)])
        self.dead.pop(cursor, None)

    def _fact(self, cursor: int) -> str:
        return f"{_DEAD}{self._name}.{cursor}"
