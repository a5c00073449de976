"""The rows of the outbox. A write that returned is on the disk; writes that come together share one
commit."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.core.model import InstanceId
from agent.store.writer import Writer
from agent.wings.messages.out.database import empty_log, open_database
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.rows import (
    Ack,
    NewMessage,
    change_row,
    find_rows,
    forget_rows,
    note_ack,
    take_row,
)
from agent.wings.messages.out.session.ledger import Ledger, forget
from agent.wings.messages.out.states import State

_WIPED = {"content": "", "file": "", "size": 0}
_FOLLOWED = "state in ('accepted', 'sent', 'delivered')"
PAGE = 200


class OutboxStore:
    def __init__(self, writer: Writer, sentences: Sequence[str]) -> None:
        self.writer = writer
        self.ledger = Ledger(writer)
        self.sentences = tuple(sentences)
        """What had to be done to open it."""

    @classmethod
    async def open(cls, path: Path, *, now_wall: Callable[[], float] = time.time) -> "OutboxStore":
        sentences: list[str] = []

        def connect() -> Database:
            db, said = open_database(path, now_wall())
            sentences.extend(said)
            return db

        writer = await Writer.open(path, connect, lambda _db: None)
        return cls(writer, sentences)

    async def close(self) -> None:
        await self.writer.close()

    async def take(
        self, new: NewMessage, committed: Callable[[tuple[OutMessage, bool]], None]
    ) -> tuple[OutMessage, bool]:
        """The row, and whether an earlier request with that key made it. `committed` is called in
        the order of the numbers."""
        return await self.writer.write(lambda db: take_row(db, new), committed)

    async def waiting(self) -> list[OutMessage]:
        """All that wait, in their order."""
        rows = "select {} from messages where state = 'accepted' order by number"
        return await self.writer.read(lambda db: find_rows(db, rows))

    async def content(self, number: int) -> Mapping[str, Any] | None:
        """What it says; None: it ended meanwhile."""

        def read(db: Database) -> Mapping[str, Any] | None:
            row = db.execute("select content from messages where number = ?", [number]).fetchone()
            content: Mapping[str, Any] | None = json.loads(row[0]) if row and row[0] else None
            return content

        return await self.writer.read(read)

    async def find(self, instance: InstanceId, id: str) -> OutMessage | None:
        """By its id in the outbox, or by WhatsApp's."""
        rows = (
            "select {} from messages where instance = ? and (id = ? or message_id = ?)"
            " order by number limit 1"
        )
        found = await self.writer.read(lambda db: find_rows(db, rows, instance, id, id))
        return found[0] if found else None

    async def page(
        self, instance: InstanceId, *, state: str = "", before: int = 0, limit: int = PAGE
    ) -> list[OutMessage]:
        """Newest first."""
        rows = (
            "select {} from messages where instance = ? and (? = '' or state = ?)"
            " and (? = 0 or number < ?) order by number desc limit ?"
        )
        given = (instance, state, state, before, before, limit)
        return await self.writer.read(lambda db: find_rows(db, rows, *given))

    async def change(self, number: int, **columns: Any) -> None:
        """Of one that waits; one that has ended stays as it is."""
        await self.writer.write(lambda db: change_row(db, number, columns))

    async def end(self, number: int, state: State, **columns: Any) -> bool:
        """It has ended: what it said is wiped. False: it had ended before."""
        columns = {**columns, **_WIPED, "state": state.value}
        return await self.writer.write(lambda db: change_row(db, number, columns))

    async def end_all(self, numbers: Sequence[int], state: State, **columns: Any) -> None:
        columns = {**columns, **_WIPED, "state": state.value}

        def write(db: Database) -> None:
            for number in numbers:
                change_row(db, number, columns)

        await self.writer.write(write)

    async def note_acks(
        self, acks: Sequence[Ack], cursors: Mapping[InstanceId, int | None] | None = None
    ) -> int:
        """How many rows they moved. `cursors`: up to where kept ones were read; None = nothing is
        followed there any more."""

        def write(db: Database) -> int:
            for instance, cursor in (cursors or {}).items():
                db.execute("delete from cursors where instance = ?", [instance])
                if cursor is not None:
                    db.execute("insert into cursors values (?, ?)", [instance, cursor])
            return sum(note_ack(db, ack) for ack in acks)

        return await self.writer.write(write)

    async def cursors(self) -> dict[InstanceId, int]:
        rows = "select instance, cursor from cursors"
        return await self.writer.read(lambda db: dict(db.execute(rows).fetchall()))

    async def followed(self) -> list[InstanceId]:
        """The instances with messages that acknowledgements may move."""
        rows = f"select distinct instance from messages where {_FOLLOWED}"
        found = await self.writer.read(lambda db: db.execute(rows).fetchall())
        return [InstanceId(row[0]) for row in found]

    async def follows(self, instance: InstanceId) -> bool:
        rows = f"select 1 from messages where instance = ? and {_FOLLOWED} limit 1"
        found = await self.writer.read(lambda db: db.execute(rows, [instance]).fetchone())
        return found is not None

    async def forget_instance(self, instance: InstanceId, born: float = 0.0) -> list[str]:
        """Its rows go with all that they say, but for those of the instance of that name that was
        made then; the names of their files."""

        def write(db: Database) -> list[str]:
            files = "select file from messages where instance = ? and born <> ? and file <> ''"
            names = [str(row[0]) for row in db.execute(files, [instance, born]).fetchall()]
            db.execute("delete from messages where instance = ? and born <> ?", [instance, born])
            db.execute("delete from cursors where instance = ?", [instance])
            forget(db, instance)
            return names

        return await self.writer.write(write)

    async def forget_ended(self, before_wall: float, most: int) -> int:
        """Drop rows that ended before that time, and the oldest over that number."""
        return await self.writer.write(lambda db: forget_rows(db, before_wall, most))

    async def empty_log(self) -> None:
        await self.writer.read(empty_log)
