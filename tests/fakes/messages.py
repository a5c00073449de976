"""Workers that keep messages in memory, and the agent's side over them."""

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from agent.core.model import Instance, InstanceId
from agent.core.session import Session
from agent.errors import LinkError, NotFound
from agent.messages.incoming import CALLS, TABLES, state_of
from agent.messages.reader import Reader
from agent.messages.record import encode
from tests.fakes.supervisor import make_view


class FakeWorker:
    """A worker with messages.db in memory; `first`: cursor of the first record that it keeps."""

    def __init__(self, first: int = 1) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.executescript(TABLES)
        self._db.execute("insert into gone values (?, null, 0, ?)", (first - 1, time.time()))
        self.begin_at(first - 1)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.leave = asyncio.Event()
        """While clear, its answers wait."""
        self.leave.set()
        self.at_once = 0

    @property
    def newest(self) -> int:
        return state_of(self._db)[0]

    def keep(
        self,
        *texts: str,
        kind: str = "message",
        kept: float | None = None,
        chat: str = "551199999901@s.whatsapp.net",
        **more: str,
    ) -> None:
        for text in texts:
            cursor, at = self.newest + 1, time.time() if kept is None else kept
            id, message_id = f"m:{chat}:{cursor}", f"3EB0{cursor:06}"
            record = {"v": 1, "id": id, "kind": kind, "chat": chat, "text": text, "at": at}
            body = encode({**record, "message_id": message_id, **more})
            row = (cursor, id, at, kind, chat, "", message_id, body)
            self._db.execute("insert into records values (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute("update state set bytes = bytes + 150")
            self.begin_at(cursor)

    def begin_at(self, newest: int) -> None:
        """The next record stands behind that cursor."""
        self._db.execute("update state set newest = ?", (newest,))

    def drop(self, count: int) -> None:
        """The oldest: they are too old, or too many."""
        oldest = "select cursor from records order by cursor limit ?"
        *_, (last,) = self._db.execute(oldest, (count,)).fetchall()
        self._db.execute("insert into gone values (?, ?, 0, ?)", (last, count, time.time()))
        self._db.execute("delete from records where cursor <= ?", (last,))

    def settled(self) -> list[int]:
        return [args["settled"] for _, args in self.asked if "settled" in args]

    async def call(
        self, do: str, args: Mapping[str, Any], timeout: float = 10.0
    ) -> Mapping[str, Any]:
        self.asked.append((do, dict(args)))
        self.at_once += 1
        answer = CALLS[do](self._db, {**args, "life": (1, self.newest + 1)}) if do in CALLS else {}
        try:
            async with asyncio.timeout(timeout):
                await self.leave.wait()
        except TimeoutError as error:
            raise LinkError(f"cannot {do}: no answer in {timeout:g} s", code="timeout") from error
        finally:
            self.at_once -= 1
        return answer


class FakeMessages:
    """The real reader over sessions whose workers are in memory."""

    def __init__(self) -> None:
        self.workers: dict[InstanceId, FakeWorker] = {}
        self.sessions: dict[InstanceId, Session] = {}
        self.reader = Reader(self)
        self._away: set[InstanceId] = set()

    def add(self, name: str, created_wall: float = 0.0, first: int = 1) -> FakeWorker:
        """A session whose worker runs."""
        id = InstanceId(name)
        self.sessions[id] = make_view(
            name, instance=Instance(id, "sandbox", True, created_wall=created_wall)
        )
        self.workers[id] = FakeWorker(first)
        return self.workers[id]

    def remove(self, name: str) -> None:
        del self.workers[InstanceId(name)], self.sessions[InstanceId(name)]
        self.reader.forget(InstanceId(name))

    def keep(self, name: str, *texts: str) -> None:
        """Let the session's worker keep `texts`, and tell the reader."""
        self.workers[InstanceId(name)].keep(*texts)
        self.tell(name)

    def tell(self, name: str) -> None:
        self.reader.changed(InstanceId(name))

    def lose_worker(self, name: str) -> None:
        self._away.add(InstanceId(name))

    def connect_worker(self, name: str) -> None:
        self._away.discard(InstanceId(name))
        self.tell(name)

    def here(self, id: InstanceId) -> bool:
        """True if the session's worker answers."""
        return id not in self._away and self.workers[id].leave.is_set()

    # As the reader asks

    root = Path("/nowhere")

    def get(self, id: InstanceId) -> Mock:
        if id not in self.workers:
            raise NotFound(f"cannot find instance {id}", field="id")

        async def call(do: str, args: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
            if id in self._away:
                raise LinkError("its worker ended", code="closed")
            return await self.workers[id].call(do, args, timeout)

        return Mock(instance=self.sessions[id].instance, link=Mock(call=call))
