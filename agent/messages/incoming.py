"""messages.db of one session, used by one thread at a time: it takes records in, answers questions
about them, and lets the oldest go. A cursor is given once and never again.

The cursors of a file that is opened to write go on above the time in milliseconds, so neither a
file that was lost nor one that was put back from an older copy repeats any.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.clock import boot_now
from agent.failpoint import failpoint
from agent.messages.database import Form, is_damage, open_file, set_aside, transaction
from agent.messages.reading import (
    FORGOTTEN_AFTER,
    READS,
    TABLES,
    find,
    nothing,
    state_of,
    whole,
    word,
)
from agent.messages.record import encode

T = TypeVar("T")

FOLDER, NAME = "messages", "messages.db"
FORM = Form(0x57414D53, 1, TABLES)  # WAMS
BESIDE = 200
"""Bytes of a row beside its record."""
MOST_GONE = 64
"""Runs of records that went; beyond them the oldest two become one."""
MOST_MARKS = 2000
_LATEST = 10**14
"""Milliseconds: a clock beyond them is wrong."""


@dataclass(frozen=True, slots=True)
class Bounds:
    hours: float = 72.0
    megabytes: float = 256.0
    most: int = 100_000


class Incoming:
    def __init__(self, path: Path, owner: str = "", bounds: Bounds | None = None) -> None:
        self.path = path
        self.owner = owner
        """The id of the session, which the file must have."""
        self.bounds = bounds or Bounds()
        self.said: list[str] = []
        """Sentences on damage, for the caller to log and to clear."""
        self._db: sqlite3.Connection | None = None
        self._next = 0
        self._opened_wall = self._opened_at = 0.0

    @property
    def there(self) -> bool:
        return self._db is not None or self.path.exists()

    def append(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Return when all are on the disk, or were there by their id: the newest cursor, 0 where
        all were there."""
        made = [(record, encode(record)) for record in records]
        newest = self._do(lambda db: self._append(db, made))
        if newest:
            self._do(self._trim)
        return newest

    def read(self, do: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a call of the link: one of CALLS."""
        if not (self.there or do == "messages_settled"):
            return nothing(do, args)
        return self._do(lambda db: CALLS[do](db, args))

    def find(self, id: str, chat: str = "") -> dict[str, Any] | None:
        """The whole record of that id, or of a message of the chat by WhatsApp's id."""
        return self._do(lambda db: find(db, id, chat)) if self.there else None

    def trim(self) -> None:
        self._do(lambda db: self._trim(db, by_age=True))

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._open())
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            self.close()
            kept = set_aside(self.path)
            self.said.append(f"{NAME} was damaged ({error}); it is kept as {kept.name}")
            return work(self._open(begun_again=True))

    def _open(self, *, begun_again: bool = False) -> sqlite3.Connection:
        """Opened at the first use, so a session in which nothing arrives has no file."""
        if self._db is not None:
            if os.path.lexists(self.path):
                return self._db
            self.close()  # moved away under us: no reader would ever find what it takes
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(mode=0o700)
            folder.chmod(folder.parent.stat().st_mode & 0o770)
        rights = 0o600 | folder.stat().st_mode & 0o060
        db, aside = open_file(self.path, FORM, mode=rights)
        owner = db.execute("select owner from state").fetchone()[0]
        if owner and owner != self.owner:
            db.close()
            kept = set_aside(self.path).name
            aside = f"{NAME} was of the session {owner!r:.80}; it is kept as {kept}"
            db, _ = open_file(self.path, FORM, mode=rights)
        if aside:
            self.said.append(aside)
        self._opened_wall, self._opened_at = time.time(), boot_now()
        with transaction(db):
            newest = state_of(db)[0]
            self._next = max(self._next, newest + 1, min(int(time.time() * 1000), _LATEST))
            if not newest:  # a reader of an earlier file hears that it missed something
                lost, self._next = int(begun_again or bool(aside)), self._next + 1
                unknown = (0, self._next - 1, None, lost, self._opened_wall)
                db.execute("insert into gone values (?, ?, ?, ?, ?)", unknown)
                db.execute("update state set lost = ?", (lost,))
            newest = self._next - 1
            db.execute("update state set owner = ?, newest = ?", (self.owner, newest))
        self._db = db
        return db

    def _append(self, db: sqlite3.Connection, made: list[tuple[Mapping[str, Any], bytes]]) -> int:
        cursor, size, kept = self._next, 0, round(time.time(), 3)
        row = "insert or ignore into records values (?, ?, ?, ?, ?, ?, ?, ?)"
        with transaction(db):
            for record, body in made:
                words = (str(record.get(name, "")) for name in ("chat", "alias", "message_id"))
                given = (cursor, record["id"], kept, record["kind"], *words, body)
                if db.execute(row, tuple(map(_storable, given))).rowcount:
                    cursor, size = cursor + 1, size + len(body) + BESIDE
            db.execute(
                "update state set newest = ?, count = count + ?, bytes = bytes + ?",
                (cursor - 1, cursor - self._next, size),
            )
            failpoint("before_commit")
        failpoint("after_commit")
        new, self._next = cursor > self._next, cursor
        return cursor - 1 if new else 0

    def _trim(self, db: sqlite3.Connection, *, by_age: bool = False) -> None:
        """Let the oldest go while a bound is passed, and a little more: not with each record."""
        _, count, bytes, *_ = state_of(db)
        most, largest = self.bounds.most, self.bounds.megabytes * (1 << 20)
        # A clock that jumps makes nothing old.
        now_wall = self._opened_wall + boot_now() - self._opened_at
        due = now_wall - self.bounds.hours * 3600 if by_age else 0.0
        if count <= most and bytes <= largest and not by_age:
            return
        if count > most or bytes > largest:
            most, largest = most - most // 64, largest - largest / 64
        last = went = freed = since = 0
        rows = "select cursor, kept, length(body) from records order by cursor"
        for cursor, kept, size in db.execute(rows):
            if count - went <= most and bytes - freed <= largest and kept >= due:
                break
            last, went, freed, since = cursor, went + 1, freed + size + BESIDE, since or kept
        if went:
            with transaction(db):
                _let_go(db, last, went, freed, since)


def _let_go(db: sqlite3.Connection, last: int, went: int, freed: int, since: float) -> None:
    *_, settled, settled_wall = state_of(db)
    first, lost = db.execute("select min(cursor) from records").fetchone()[0], 0
    if last > settled and time.time() - settled_wall < FORGOTTEN_AFTER:
        unread = "select count(*) from records where cursor > ? and cursor <= ?"
        lost = db.execute(unread, (settled, last)).fetchone()[0]
    db.execute("delete from records where cursor <= ?", (last,))
    db.execute(
        "insert or replace into gone values (?, ?, ?, ?, ?)", (first, last, went, lost, since)
    )
    if db.execute("select count(*) from gone").fetchone()[0] > MOST_GONE:
        # But the one of an unknown number, before the file's first record, stays apart.
        known = "gone where missing is not null"
        oldest = f"select first, missing, lost from {known} order by last limit 1"
        begins, missing, unread = db.execute(oldest).fetchone()
        db.execute("delete from gone where first = ?", (begins,))
        widen = "update gone set first = ?, missing = missing + ?, lost = lost + ?"
        next = f"where last = (select min(last) from {known})"
        db.execute(f"{widen} {next}", (begins, missing, unread))
    change = "update state set count = count - ?, bytes = bytes - ?, lost = lost + ?"
    db.execute(change, (went, freed, lost))


def _settle(db: sqlite3.Connection, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """All up to the cursor were delivered to all consumers."""
    newest, *_, settled, settled_wall = state_of(db)
    now, cursor = time.time(), min(whole(args, "cursor"), newest)
    if settled < cursor or not 0 <= now - settled_wall < 3600:
        change = "update state set settled = ?, settled_wall = ?"
        db.execute(change, (max(cursor, settled), now))
    return {}


def _mark(db: sqlite3.Connection, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The messages of a chat up to the cursor were marked as read."""
    row = (
        "insert into marks values (?, ?) on conflict (chat)"
        " do update set cursor = max(cursor, excluded.cursor)"
    )
    with transaction(db):
        db.execute(row, (word(args, "chat"), whole(args, "cursor")))
        over = "select chat from marks order by cursor desc limit -1 offset ?"
        db.execute(f"delete from marks where chat in ({over})", (MOST_MARKS,))
    return {}


CALLS = {**READS, "messages_settled": _settle, "messages_marked": _mark}


def _storable(value: Any) -> Any:
    """WhatsApp's texts come from JavaScript, where half a character is possible."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
