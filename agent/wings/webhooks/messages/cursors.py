"""The cursors of one webhook, one for each session, where it begins in a new one, and the records
that its target refused for good, in the database. The records themselves stay with their sessions,
and so do their texts."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agent.core.model import InstanceId
from agent.store.database import Store
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.webhooks.cursor import MOST_DEAD
from agent.wings.webhooks.deliveries import DeadLetter

_BEGUN, _CURSOR, _DEAD = "webhook_messages.", "webhook_message.", "webhook_message_dead."
_FORGOTTEN_AFTER = 90 * 86_400.0
"""Seconds without a move after which the cursor of a session that is gone goes too."""

Letter = tuple[InstanceId, int]


class MessageCursors:
    @classmethod
    async def open(
        cls, store: Store, name: str, *, oldest: bool, there: frozenset[InstanceId]
    ) -> "MessageCursors":
        """`oldest`: a webhook that has no cursor yet begins with all that is kept; `there`: the
        sessions of now."""
        text = await store.get_fact(_BEGUN + name)
        if text is None:
            text = "0.0" if oldest else repr(time.time())
            await store.put_fact(_BEGUN + name, text)
        facts = await store.get_facts(f"{_CURSOR}{name}.")
        rows = {
            InstanceId(fact.rpartition(".")[2]): json.loads(value) for fact, value in facts.items()
        }
        due = time.time() - _FORGOTTEN_AFTER
        gone = [id for id, row in rows.items() if id not in there and row["at"] < due]
        await store.forget_facts([f"{_CURSOR}{name}.{id}" for id in gone])
        letters = await store.get_facts(f"{_DEAD}{name}.")
        dead = [DeadLetter(**json.loads(value)) for value in letters.values()]
        kept = {id: row for id, row in rows.items() if id not in gone}
        return cls(store, name, float(text), kept, dead)

    def __init__(
        self,
        store: Store,
        name: str,
        begun_wall: float,
        rows: Mapping[InstanceId, Mapping[str, Any]],
        dead: list[DeadLetter],
    ) -> None:
        self.begun_wall = begun_wall
        """What was kept before is none of this webhook's."""
        self._store = store
        self._name = name
        self._cursors = {id: int(row["cursor"]) for id, row in rows.items()}
        self._saved = dict(self._cursors)
        self._born = {id: float(row["born"]) for id, row in rows.items()}
        dead.sort(key=lambda letter: letter.at_wall)
        self.dead = {_key(letter): letter for letter in dead}
        """Oldest first."""

    def find(self, id: InstanceId, born_wall: float) -> int | None:
        """All up to it is settled; None: the webhook has none of this session yet. Another one of
        the same name may have been there before."""
        return self._cursors.get(id) if self._born.get(id) == born_wall else None

    def begin(self, id: InstanceId, born_wall: float, cursor: int) -> None:
        self._born[id], self._cursors[id] = born_wall, cursor
        self._saved.pop(id, None)

    def move(self, id: InstanceId, cursor: int) -> bool:
        """Whether it was elsewhere."""
        before, self._cursors[id] = self._cursors.get(id), cursor
        return before != cursor

    def items(self) -> Mapping[InstanceId, int]:
        return self._cursors

    def saved(self, id: InstanceId) -> int:
        """Up to it nothing is sent again after a kill."""
        return self._saved.get(id, 0)

    async def save(self) -> list[InstanceId]:
        """All that moved, in one step; returns whose."""
        moved = {id: at for id, at in self._cursors.items() if self._saved.get(id) != at}
        if moved:
            await self._store.put_facts(
                {self._fact(id): self._row(id, at) for id, at in moved.items()}
            )
            self._saved.update(moved)
        return list(moved)

    async def put_aside(self, id: InstanceId, record: Mapping[str, Any], problem: str) -> None:
        """Write the letter; the cursor goes behind it when what came before is settled, too. Who is
        killed in between puts it aside once more, under the same key."""
        cursor, now_wall = int(record["cursor"]), time.time()
        letter = DeadLetter(
            cursor,
            str(record["kind"]),
            id,
            float(record.get("kept") or now_wall),
            problem,
            now_wall,
            str(record.get("message_id", ""))[:64],
        )
        await self._store.put_facts({self._letter(_key(letter)): json.dumps(asdict(letter))})
        self.dead[_key(letter)] = letter
        if len(self.dead) > MOST_DEAD:
            await self.forget(next(iter(self.dead)))

    async def forget(self, key: Letter) -> None:
        await self._store.forget_facts([self._letter(key)])
        self.dead.pop(key, None)

    def _row(self, id: InstanceId, cursor: int) -> str:
        born_wall = self._born.get(id, 0.0)
        return json.dumps({"cursor": cursor, "born": born_wall, "at": time.time()})

    def _fact(self, id: InstanceId) -> str:
        return f"{_CURSOR}{self._name}.{id}"

    def _letter(self, key: Letter) -> str:
        return f"{_DEAD}{self._name}.{key[0]}.{key[1]}"


def _key(letter: DeadLetter) -> Letter:
    return InstanceId(letter.instance or ""), letter.cursor


async def cursor_before(source: KeptMessages, id: InstanceId, wall: float) -> int:
    """The cursor before the first record that was kept since then. Found by halves: a session may
    keep a hundred thousand."""
    page = await source.page(id, 0, limit=1)
    low, high = page.oldest - 1, page.newest
    if wall <= 0 or low < 0:
        return 0
    while low < high:
        middle = (low + high) // 2
        page = await source.page(id, middle, limit=2)
        record = next((one for one in page.records if "kept" in one), None)
        if record is None:
            high = middle  # nothing behind it can be read
        elif float(record["kept"]) < wall:
            low = int(record["cursor"])
        else:
            high = middle
    return low
