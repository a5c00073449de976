"""Who reads messages over the API has no name; how far the furthest one came outlives the agent, so
that what its session drops meanwhile counts as missing."""

import json
import time

from agent.core.model import InstanceId
from agent.store.database import Store
from agent.supervise.messages.kept_messages import READER, KeptMessages
from agent.wings.messages.spool.line import BEYOND

_FACT = "messages_reader."
WRITE_EVERY = 600.0
FORGOTTEN_AFTER = 7 * 86_400.0
"""Seconds after which who came no more counts as nobody."""


class Readers:
    def __init__(self, store: Store, source: KeptMessages) -> None:
        self._store = store
        self._source = source
        self._written_wall: dict[InstanceId, float] = {}
        self._known: dict[InstanceId, int] = {}

    def of(self, id: InstanceId) -> int:
        """How far the furthest one came; 0 = nobody reads."""
        return self._known.get(id, 0)

    async def load(self) -> None:
        now_wall, forgotten = time.time(), []
        for name, text in (await self._store.get_facts(_FACT)).items():
            try:
                fact = json.loads(text)
                cursor, at_wall = int(fact["cursor"]), float(fact["at"])
                if not (0 <= cursor < BEYOND and 0 <= at_wall < BEYOND):
                    raise ValueError("out of range")
            except (ValueError, TypeError, KeyError, OverflowError):
                cursor, at_wall = 0, 0.0
            if now_wall - at_wall > FORGOTTEN_AFTER:
                forgotten.append(name)
                continue
            id = InstanceId(name.removeprefix(_FACT))
            self._known[id] = cursor
            await self._source.settled(READER, id, cursor)
        if forgotten:
            await self._store.forget_facts(forgotten)

    async def note(self, id: InstanceId, cursor: int) -> None:
        """A reader has all up to the cursor."""
        self._known[id] = max(cursor, self.of(id))
        await self._source.settled(READER, id, cursor)
        now_wall = time.time()
        if not 0 <= now_wall - self._written_wall.get(id, 0.0) < WRITE_EVERY:
            self._written_wall[id] = now_wall
            fact = json.dumps({"cursor": cursor, "at": now_wall})
            await self._store.put_facts({_FACT + id: fact})
