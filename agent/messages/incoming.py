"""messages.db of one session, used by one thread at a time: it takes records in, gives pages of
them out, and lets the oldest go. A cursor is given once and never again.

The cursors of a file that is opened to write go on above the time in milliseconds, so neither a
file that was lost nor one that was put back from an older copy repeats any.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.clock import boot_now
from agent.failpoint import failpoint
from agent.messages.database import Form, is_damage, open_file, open_to_read, set_aside, transaction
from agent.messages.record import PRIVATE, encode, erased, gap, show

T = TypeVar("T")

NAME = "messages.db"
FORM = Form(
    0x57414D53,  # WAMS
    1,
    """
create table records (
    cursor integer primary key, id text not null unique, kept real not null, kind text not null,
    chat text not null, alias text not null, message_id text not null, body blob not null
);
create index records_of_message on records (message_id) where kind = 'message';
create index records_of_chat on records (chat, cursor) where kind = 'message';
create index records_of_alias on records (alias, cursor) where kind = 'message' and alias <> '';
create table gone (
    first integer not null, last integer primary key, missing integer, lost integer not null,
    since real not null
);
create table marks (chat text primary key, cursor integer not null) without rowid;
create table state (
    owner text not null, newest integer not null default 0, count integer not null default 0,
    bytes integer not null default 0, lost integer not null default 0,
    settled integer not null default 0, settled_wall real not null default 0
);
insert into state (owner) values ('');
""",
    frozenset({"records", "gone", "marks", "state"}),
)
BESIDE = 200
"""Bytes of a row beside its record."""
PAGE_BYTES = 900 * 1024
"""Of one page on the link, where each sign beyond ASCII is escaped."""
MOST_GONE = 64
"""Runs of records that went; the oldest two become one."""
MOST_MARKS = 2000
MOST_UNREAD = 1000
FORGOTTEN_AFTER = 7 * 86_400.0
"""Seconds after which a session that no consumer reads loses nothing when records go."""
_LATEST = 10**14
"""Milliseconds: a clock beyond them is wrong."""
RAW = f"{PRIVATE}raw"


@dataclass(frozen=True, slots=True)
class Bounds:
    hours: float = 72.0
    megabytes: float = 256.0
    most: int = 100_000


@dataclass(frozen=True, slots=True)
class Page:
    records: list[dict[str, Any]]
    next: int
    """The cursor to ask behind after this page."""
    oldest: int
    newest: int
    """Cursors; `oldest` is beyond `newest` where nothing is kept."""

    @property
    def more(self) -> bool:
        return self.next < self.newest

    def as_answer(self) -> dict[str, Any]:
        """As the API and the link give it."""
        return {
            "records": self.records,
            "next": self.next,
            "oldest": self.oldest,
            "newest": self.newest,
            "more": self.more,
        }


def nothing(after: int) -> Page:
    """Where no file is: a reader that had records hears that they are gone."""
    return Page([erased(after, time.time())] if after else [], 0, 1, 0)


@dataclass(frozen=True, slots=True)
class State:
    waiting: int = 0
    """Records that were not delivered to all consumers."""
    bytes: int = 0
    oldest_at: float = 0.0
    newest: int = 0
    lost: int = 0
    """Records that went, or were damaged, before all consumers had them."""


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
        self._inode = 0

    @property
    def there(self) -> bool:
        return self._db is not None or self.path.exists()

    @property
    def due(self) -> float:
        """Unix time; what was kept before it is too old. A clock that jumps makes nothing old."""
        now_wall = self._opened_wall + boot_now() - self._opened_at
        return now_wall - self.bounds.hours * 3600

    @property
    def newest(self) -> int:
        return self._do(lambda db: _state(db)[0])

    def append(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Return when all are on the disk, or were there by their id; how many are new."""
        made = [(record, encode(record)) for record in records]
        new = self._do(lambda db: self._append(db, made))
        if new:
            self._do(self._trim)
        return new

    def page(self, after: int, limit: int) -> Page:
        """What follows the cursor: 0 = from the oldest."""
        if not self.there:
            return nothing(after)
        return self._do(lambda db: page(db, after, limit))

    def settle(self, cursor: int) -> None:
        """All up to the cursor were delivered to all consumers."""
        self._do(lambda db: _settle(db, cursor))

    def trim(self) -> None:
        self._do(lambda db: self._trim(db, by_age=True))

    def state(self) -> State:
        return self._do(state) if self.there else State()

    def find(self, id: str) -> dict[str, Any] | None:
        """The whole record of that id, with what no reader gets."""
        rows = "select cursor, kept, body from records where id = ?"
        return next(iter(self._do(lambda db: _whole(db, rows, id))), None)

    def messages(self, chat: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The whole records of messages of a chat, by WhatsApp's ids."""
        rows = (
            "select cursor, kept, body from records where kind = 'message' and message_id = ?"
            " and (chat = ? or (alias = ? and chat not like '%@g.us'))"
        )

        def find(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
            return {id: record for id in ids for record in _whole(db, rows, id, chat, chat)[:1]}

        return self._do(find)

    def unread(self, chat: str) -> tuple[list[dict[str, Any]], int]:
        """Newest first, the messages of others that arrived since the chat was marked; and the
        newest cursor."""
        return self._do(lambda db: _unread(db, chat))

    def mark(self, chat: str, cursor: int) -> None:
        """The messages of a chat up to the cursor were marked as read."""
        self._do(lambda db: _mark(db, chat, cursor))

    def other_name(self, jid: str) -> str:
        """The number of a lid, or the lid of a number, by what arrived; "" = unknown."""
        return self._do(lambda db: other_name(db, jid))

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.close()
            kept = set_aside(self.path)
            self.said.append(f"{NAME} was damaged ({error}); it is kept as {kept.name}")
            return work(self._open(begun_again=True))

    def _open(self, *, begun_again: bool = False) -> sqlite3.Connection:
        """Opened at the first use, so a session in which nothing arrives has no file."""
        if self._db is not None:
            if os.path.lexists(self.path) and self.path.stat().st_ino == self._inode:
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
            newest = _state(db)[0]
            self._next = max(self._next, newest + 1, min(int(time.time() * 1000), _LATEST))
            if not newest:  # a reader of an earlier file hears that it missed something
                lost, self._next = int(begun_again or bool(aside)), self._next + 1
                unknown = (0, self._next - 1, None, lost, self._opened_wall)
                db.execute("insert into gone values (?, ?, ?, ?, ?)", unknown)
                db.execute("update state set lost = ?", (lost,))
            newest = self._next - 1
            db.execute("update state set owner = ?, newest = ?", (self.owner, newest))
        self._inode = self.path.stat().st_ino
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
        new, self._next = cursor - self._next, cursor
        return new

    def _trim(self, db: sqlite3.Connection, *, by_age: bool = False) -> None:
        """Let the oldest go while a bound is passed, and a little more: not with each record."""
        _, count, bytes, *_ = _state(db)
        most, largest = self.bounds.most, self.bounds.megabytes * (1 << 20)
        due = self.due if by_age else 0.0
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
    *_, settled, settled_wall = _state(db)
    first, lost = db.execute("select min(cursor) from records").fetchone()[0], 0
    if last > settled and time.time() - settled_wall < FORGOTTEN_AFTER:
        unread = "select count(*) from records where cursor > ? and cursor <= ?"
        lost = db.execute(unread, (settled, last)).fetchone()[0]
    db.execute("delete from records where cursor <= ?", (last,))
    db.execute(
        "insert or replace into gone values (?, ?, ?, ?, ?)", (first, last, went, lost, since)
    )
    runs = db.execute("select * from gone order by last limit 2").fetchall()
    if db.execute("select count(*) from gone").fetchone()[0] > MOST_GONE:
        (first, older, one, unread_one, since), (_, newer, other, unread_other, _) = runs
        missing = None if None in (one, other) else one + other
        db.execute("delete from gone where last in (?, ?)", (older, newer))
        joined = (first, newer, missing, unread_one + unread_other, since)
        db.execute("insert into gone values (?, ?, ?, ?, ?)", joined)
    change = "update state set count = count - ?, bytes = bytes - ?, lost = lost + ?"
    db.execute(change, (went, freed, lost))


def read_only(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """What `work` finds in the file of a worker that does not run; its errors mean: ask again."""
    db = open_to_read(path)
    try:
        return work(db)
    finally:
        db.close()


def page(db: sqlite3.Connection, after: int, limit: int) -> Page:
    newest = _state(db)[0]
    records: list[dict[str, Any]] = []
    size = last = 0
    if after > newest:
        # What was kept is gone, and this file is another one: its reader has nothing of it.
        records.append(erased(after, time.time()))
        after = 0
    elif found := _gap(db, after):
        records.append(found)
        after = last = found["cursor"]
    rows = "select cursor, kept, body from records where cursor > ? order by cursor limit ?"
    for cursor, kept, body in db.execute(rows, (after, limit)):
        size += 100 + (len(body) if body.isascii() else len(body) * 3)
        if size > PAGE_BYTES and last:
            break
        last = cursor
        records.append(show(cursor, kept, body))
    oldest = db.execute("select min(cursor) from records").fetchone()[0] or newest + 1
    return Page(records, last or newest, oldest, newest)


def state(db: sqlite3.Connection) -> State:
    newest, _, bytes, lost, settled, _ = _state(db)
    waiting = db.execute("select count(*) from records where cursor > ?", (settled,)).fetchone()[0]
    oldest = db.execute("select kept from records order by cursor limit 1").fetchone()
    return State(waiting, bytes, oldest[0] if oldest else 0.0, newest, lost)


def other_name(db: sqlite3.Connection, jid: str) -> str:
    for mine, other in (("chat", "alias"), ("alias", "chat")):
        row = (
            f"select {other} from records where kind = 'message' and {mine} = ? and alias <> ''"
            " and chat not like '%@g.us' order by cursor desc limit 1"
        )
        if found := db.execute(row, (jid,)).fetchone():
            return str(found[0])
    return ""


def _gap(db: sqlite3.Connection, after: int) -> dict[str, Any] | None:
    """For a reader behind records that went; one that begins gets what no consumer had."""
    *_, settled, _ = _state(db)
    runs = "select first, last, missing, since from gone where last > ?"
    if not after:
        after, runs = settled, f"{runs} and lost > 0"
    found = db.execute(f"{runs} order by last", (after,)).fetchall()
    if not found:
        return None
    (first, last, missing, since), *_ = found
    numbers: list[int | None] = [each[2] for each in found[1:]]
    numbers.append(missing if missing is None or first > after else min(missing, last - after))
    known = [number for number in numbers if number is not None]
    many = sum(known) if len(known) == len(numbers) else None
    return gap(max(first, after + 1), found[-1][1], since, many)


def _state(db: sqlite3.Connection) -> tuple[int, int, int, int, int, float]:
    row = "select newest, count, bytes, lost, settled, settled_wall from state"
    found: tuple[int, int, int, int, int, float] = db.execute(row).fetchone()
    return found


def _settle(db: sqlite3.Connection, cursor: int) -> None:
    newest, *_, settled, settled_wall = _state(db)
    now = time.time()
    if settled < (cursor := min(cursor, newest)) or not 0 <= now - settled_wall < 3600:
        change = "update state set settled = ?, settled_wall = ?"
        db.execute(change, (max(cursor, settled), now))


def _unread(db: sqlite3.Connection, chat: str) -> tuple[list[dict[str, Any]], int]:
    marked = db.execute("select cursor from marks where chat = ?", (chat,)).fetchone()
    rows = (
        "select cursor, kept, body from records where kind = 'message' and {} = ? and cursor > ?"
        " order by cursor desc limit ?"
    )
    given = chat, marked[0] if marked else 0, MOST_UNREAD
    found = _whole(db, rows.format("chat"), *given)
    found += [
        each
        for each in _whole(db, rows.format("alias <> '' and alias"), *given)
        if each["chat"] != chat and not each["chat"].endswith("@g.us")
    ]
    found.sort(key=lambda each: each["cursor"], reverse=True)
    theirs = [each for each in found if not each.get("from_me") and each.get("message_id")]
    return theirs[:MOST_UNREAD], _state(db)[0]


def _mark(db: sqlite3.Connection, chat: str, cursor: int) -> None:
    row = (
        "insert into marks values (?, ?) on conflict (chat)"
        " do update set cursor = max(cursor, excluded.cursor)"
    )
    with transaction(db):
        db.execute(row, (chat, cursor))
        over = "select chat from marks order by cursor desc limit -1 offset ?"
        db.execute(f"delete from marks where chat in ({over})", (MOST_MARKS,))


def _whole(db: sqlite3.Connection, rows: str, *given: object) -> list[dict[str, Any]]:
    found = db.execute(rows, given)
    return [{"cursor": cursor, **json.loads(body), "kept": kept} for cursor, kept, body in found]


def _storable(value: Any) -> Any:
    """WhatsApp's texts come from JavaScript, where half a character is possible."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
