"""The rows of the outbox. A write that returned is on the disk; writes that come together share one
commit."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.store.writer import Writer
from agent.wings.messages.out.database import empty_log, open_database
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.session.ledger import Ledger, forget
from agent.wings.messages.out.states import State, after_ack

_COLUMNS = ", ".join(field.name for field in fields(OutMessage))
_WIPED = {"content": "", "file": "", "size": 0}
_FOLLOWED = "state in ('accepted', 'sent', 'delivered')"
PAGE = 200
CUT = 64
"""Characters that an event has of WhatsApp's id."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """As it is taken: the row without its number, and what it says."""

    row: OutMessage
    content: str
    """JSON; what is in the row's file is not in it."""


@dataclass(frozen=True, slots=True)
class Ack:
    instance: InstanceId
    message_id: str
    word: str
    wall: float


class OutboxStore:
    def __init__(self, writer: Writer, sentences: Sequence[str]) -> None:
        self._writer = writer
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

        writer = await Writer.open(path, connect, lambda _db: None, lambda: False)
        return cls(writer, sentences)

    async def close(self) -> None:
        await self._writer.close()

    async def take(
        self, new: NewMessage, committed: Callable[[tuple[OutMessage, bool]], None]
    ) -> tuple[OutMessage, bool]:
        """The row, and whether an earlier request with that key made it. `committed` is called in
        the order of the numbers."""
        return await self._writer.write(lambda db: _take(db, new), committed)

    async def waiting(self) -> list[OutMessage]:
        """All that wait, in their order."""
        rows = "select {} from messages where state = 'accepted' order by number"
        return await self._writer.read(lambda db: _rows(db, rows))

    async def waiting_of(self, instance: InstanceId) -> list[OutMessage]:
        rows = "select {} from messages where instance = ? and state = 'accepted' order by number"
        return await self._writer.read(lambda db: _rows(db, rows, instance))

    async def instances(self) -> list[InstanceId]:
        """Of which there is a message, or the place in their acknowledgements."""
        rows = "select instance from messages union select instance from cursors"
        found = await self._writer.read(lambda db: db.execute(rows).fetchall())
        return [InstanceId(row[0]) for row in found]

    async def bring(self, new: NewMessage) -> OutMessage | None:
        """One of another machine; None: it is here already, or one with its Idempotency-Key is."""
        return await self._writer.write(lambda db: _bring(db, new))

    async def forget(self, numbers: Sequence[int]) -> None:
        def write(db: Database) -> None:
            marks = [[number] for number in numbers]
            db.conn.executemany("delete from messages where number = ?", marks)

        await self._writer.write(write)

    async def content(self, number: int) -> Mapping[str, Any] | None:
        """What it says; None: it ended meanwhile."""

        def read(db: Database) -> Mapping[str, Any] | None:
            row = db.execute("select content from messages where number = ?", [number]).fetchone()
            content: Mapping[str, Any] | None = json.loads(row[0]) if row and row[0] else None
            return content

        return await self._writer.read(read)

    async def find(self, instance: InstanceId, id: str) -> OutMessage | None:
        """By its id in the outbox, or by WhatsApp's."""
        rows = (
            "select {} from messages where instance = ? and (id = ? or message_id = ?)"
            " order by number limit 1"
        )
        found = await self._writer.read(lambda db: _rows(db, rows, instance, id, id))
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
        return await self._writer.read(lambda db: _rows(db, rows, *given))

    async def change(self, number: int, **columns: Any) -> None:
        """Of one that waits; one that has ended stays as it is."""
        await self._writer.write(lambda db: _change(db, number, columns))

    async def end(self, number: int, state: State, **columns: Any) -> bool:
        """It has ended: what it said is wiped. False: it had ended before."""
        columns = {**columns, **_WIPED, "state": state.value}
        return await self._writer.write(lambda db: _change(db, number, columns))

    async def end_all(self, numbers: Sequence[int], state: State, **columns: Any) -> None:
        columns = {**columns, **_WIPED, "state": state.value}

        def write(db: Database) -> None:
            for number in numbers:
                _change(db, number, columns)

        await self._writer.write(write)

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
            return sum(_note_ack(db, ack) for ack in acks)

        return await self._writer.write(write)

    async def cursors(self) -> dict[InstanceId, int]:
        rows = "select instance, cursor from cursors"
        return await self._writer.read(lambda db: dict(db.execute(rows).fetchall()))

    async def followed(self) -> list[InstanceId]:
        """The instances with messages that acknowledgements may move."""
        rows = f"select distinct instance from messages where {_FOLLOWED}"
        found = await self._writer.read(lambda db: db.execute(rows).fetchall())
        return [InstanceId(row[0]) for row in found]

    async def follows(self, instance: InstanceId) -> bool:
        rows = f"select 1 from messages where instance = ? and {_FOLLOWED} limit 1"
        found = await self._writer.read(lambda db: db.execute(rows, [instance]).fetchone())
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

        return await self._writer.write(write)

    async def forget_ended(self, before_wall: float, most: int) -> int:
        """Drop rows that ended before that time, and the oldest over that number."""
        return await self._writer.write(lambda db: _forget(db, before_wall, most))

    async def empty_log(self) -> None:
        await self._writer.read(empty_log)


def _take(db: Database, new: NewMessage) -> tuple[OutMessage, bool]:
    row = new.row
    if row.repeats:
        found = _rows(db, "select {} from messages where repeats = ?", row.repeats)
        if found:
            if found[0].digest != row.digest:
                raise Refused(
                    "cannot use this Idempotency-Key again: it was sent with another request",
                    field="Idempotency-Key",
                    code="idempotency_key_reused",
                )
            return found[0], True
    return _insert(db, new), False


def _bring(db: Database, new: NewMessage) -> OutMessage | None:
    same = "select 1 from messages where id = ? or repeats = ?"
    if db.execute(same, [new.row.id, new.row.repeats or None]).fetchone() is not None:
        return None
    return _insert(db, new)


def _insert(db: Database, new: NewMessage) -> OutMessage:
    row = new.row
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    del values["number"]
    values |= {
        "state": row.state.value,
        "repeats": row.repeats or None,
        "answer": json.dumps(dict(row.answer)),
        "content": new.content,
    }
    marks = ", ".join("?" * len(values))
    made = db.execute(
        f"insert into messages ({', '.join(values)}) values ({marks})", list(values.values())
    )
    number = made.lastrowid
    assert number is not None
    return _rows(db, "select {} from messages where number = ?", number)[0]


def _change(db: Database, number: int, columns: Mapping[str, Any]) -> bool:
    stored = {
        name: json.dumps(dict(value)) if isinstance(value, Mapping) else value
        for name, value in columns.items()
    }
    if stored.get("repeats") == "":
        stored["repeats"] = None  # unique, and only null may stand twice
    names = ", ".join(f"{name} = ?" for name in stored)
    done = db.execute(
        f"update messages set {names} where number = ? and state = 'accepted'",
        [*stored.values(), number],
    )
    return done.rowcount > 0


def _note_ack(db: Database, ack: Ack) -> int:
    rows = "select {} from messages where message_id = ? and instance = ?"
    found = _rows(db, rows, ack.message_id, ack.instance)
    if not found and len(ack.message_id) == CUT:
        longer = "select {} from messages where message_id between ? and ? and instance = ?"
        found = _rows(db, longer, ack.message_id, ack.message_id + "\x7f", ack.instance)
    for row in found:
        state = after_ack(row.state, ack.word)
        if state is row.state:
            continue
        why = ("refused", "WhatsApp refused it afterwards") if state is State.FAILED else ("", "")
        db.execute(
            "update messages set state = ?, changed_wall = ?, reason = ?, sentence = ?"
            " where number = ?",
            [state.value, ack.wall, *why, row.number],
        )
        return 1
    return 0


def _forget(db: Database, before_wall: float, most: int) -> int:
    old = "delete from messages where state <> 'accepted' and changed_wall < ?"
    gone = db.execute(old, [before_wall]).rowcount
    over = (
        "delete from messages where number in (select number from messages"
        " where state <> 'accepted' order by changed_wall desc limit -1 offset ?)"
    )
    return gone + db.execute(over, [most]).rowcount


def _rows(db: Database, sql: str, *given: Any) -> list[OutMessage]:
    found = db.execute(sql.format(_COLUMNS), list(given)).fetchall()
    names = [field.name for field in fields(OutMessage)]
    return [_message(dict(zip(names, row, strict=True))) for row in found]


def _message(row: dict[str, Any]) -> OutMessage:
    answer: Any = {}
    with contextlib.suppress(ValueError):
        answer = json.loads(row["answer"])
    return OutMessage(
        **{
            **row,
            "instance": InstanceId(row["instance"]),
            "state": State(row["state"]),
            "repeats": row["repeats"] or "",
            "answer": answer if isinstance(answer, dict) else {},
        }
    )
