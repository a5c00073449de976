"""Messages that arrived in one session: messages.db, used by one thread at a time, takes records
in, answers questions about them, and lets the oldest go. The agent reads the file of a worker that
does not run.

A cursor is given once: those of a file that is opened to write go on above the time in
milliseconds, so neither a lost file nor one put back from an older copy repeats any.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from agent import clock, errors, files
from agent.messages import database
from agent.messages.record import LONGEST_WORD, PRIVATE, encode, gap, read, show

T = TypeVar("T")
Answer = Mapping[str, Any]

FOLDER, NAME = "messages", "messages.db"
TABLES = """
create table records (
    cursor integer primary key, id text not null unique, kept real not null, kind text not null,
    chat text not null, alias text not null, message_id text not null, body blob not null
);
create index records_of_message on records (message_id) where kind = 'message';
create index records_of_chat on records (chat) where kind = 'message' and alias <> '';
create index records_of_alias on records (alias) where kind = 'message' and alias <> '';
create table gone (
    last integer primary key, missing integer, lost integer not null, since real not null
);
create table marks (chat text primary key, cursor integer not null) without rowid;
create table state (
    owner text not null, newest integer not null default 0, count integer not null default 0,
    bytes integer not null default 0, lost integer not null default 0,
    settled integer not null default 0, settled_wall real not null default 0
);
insert into state (owner) values ('');
"""
FORM = database.Form(0x57414D53, 1, TABLES)  # WAMS
BESIDE = 200
"""Bytes of a row beside its record."""
MOST_GONE = 64
"""Runs of records that went; beyond them the oldest two become one, with both numbers."""
PAGE_BYTES = 256 * 1024
"""Bytes of one page on the link."""
MOST_FOUND = 200
MOST_UNREAD = 1000
FORGOTTEN = 7 * 86_400.0
"""Seconds after which a session that no consumer reads has none waiting, and loses none."""
_OF_CHAT = "(chat = ? or (alias <> '' and alias = ? and chat not like '%@g.us'))"
"""A person's other name is the chat's too, but in a group."""


class Incoming:
    def __init__(self, path: Path, owner: str = "", **bounds: float) -> None:
        self.path, self._home = path, (path.parents[1], path.parents[1].stat())
        self.owner = owner
        """The id of the session, which the file must have."""
        self.bounds = {"hours": 72.0, "megabytes": 256.0, "most": 100_000} | bounds
        self.said: list[str] = []
        """Sentences on damage, for the caller to log and to clear."""
        self._db: sqlite3.Connection | None = None
        self._at_once = min(64, self.bounds["most"] // 64, self.bounds["megabytes"] * 16)
        """KiB, or records, that come before they are counted: with each it would cost a sixth."""
        self._next, self._uncounted = 0, self._at_once  # what a killed worker left, with the first
        self._had: dict[str, int] = {}
        """By consumer, the cursor behind which it asked last: all up to that is delivered. A page
        in its hands is not: a kill of the agent loses it."""

    def append(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Return when all are on the disk, or were there by their id: the newest cursor, 0 where
        all were there. What is too old goes, also where none comes."""
        return self._do(self._append, [(record, encode(record)) for record in records])

    def read(self, do: str, args: Answer) -> Answer:
        """Answer a call of the link: one of CALLS."""
        if not os.path.lexists(self.path) and "settled" not in args:
            return nothing(do, args) if do in READS else {}
        answer = self._do(lambda db: CALLS[do](db, {**args, "life": (self._begun, self._next)}))
        if "consumer" in args:
            self._had = {name: self._had.get(name, 0) for name in args["consumers"]}
            # A cursor that this file never gave says nothing of what it has.
            self._had[args["consumer"]] = args["after"] * (args["after"] <= answer["newest"])
        return answer

    def find(self, id: str, chat: str = "") -> dict[str, Any] | None:
        """The whole record of that id, or of a message of the chat by WhatsApp's id."""
        return self._do(find, id, chat) if self.path.exists() else None

    def close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            with closing(db), suppress(sqlite3.Error):
                # SQLite leaves the log of a file that was moved: the next file would replay it.
                db.execute("pragma wal_checkpoint(truncate)")

    def _do(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work` with the connection. A file that fails twice is damaged."""
        for again in (True, False):
            try:
                return work(self._open(), *args)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not database.is_damage(error):
                    raise
                self.close()
                if not again:
                    self.said.append(database.set_aside(self.path, f"damaged ({error})"))
        return work(self._open(), *args)

    def _open(self) -> sqlite3.Connection:
        """Opened at the first use, so a session in which nothing arrives has no file. StoreError:
        another session's folder stands in the place of this one's, whose file is left alone."""
        if not os.path.samestat(self._home[0].stat(), self._home[1]):
            raise errors.StoreError(f"cannot open {self.path}: another folder stands there")
        if self._db is not None:
            if files.in_place(self._standing):
                return self._db
            self.close()  # no reader would ever find what it takes
            if not files.in_place(self._standing[:2]):
                self.said.append(f"{NAME} was removed, moved away or replaced")
        rights = database.rights_in(self.path.parent)
        db, aside = database.open_file(self.path, FORM, mode=rights)
        owner = db.execute("select owner from state").fetchone()[0]
        if owner and owner != self.owner:
            db.close()
            aside = database.set_aside(self.path, f"of the session {owner!r:.80}")
            db, _ = database.open_file(self.path, FORM, mode=rights)
        self.said += [aside] if aside else []
        self._opened_wall, self._opened_at = time.time(), clock.boot_now()
        with db:
            db.execute("begin immediate")
            newest = state_of(db)[0]
            self._next = max(self._next, newest + 1, int(time.time() * 1000))
            if not newest:  # a reader of an earlier file hears that it missed something
                lost = bool(self.said) or any(self.path.parent.glob(f"{NAME}.damaged-*"))
                self._next += 1
                _lacks(db, self._next - 1, lost)
            db.execute("update state set owner = ?", (self.owner,))
        self._standing: list[tuple[str, os.stat_result]] = files.standing(self.path)
        self._db, self._begun = db, self._next
        return db

    def _append(self, db: sqlite3.Connection, made: list[tuple[Mapping[str, Any], bytes]]) -> int:
        its, now = ("id", "chat", "alias", "message_id"), round(time.time(), 3)
        cursor, row = self._next, "insert or ignore into records values (?, ?, ?, ?, ?, ?, ?, ?)"
        with db:
            db.execute("begin immediate")
            for record, body in made:
                # WhatsApp's texts come from JavaScript, where half a character is possible.
                words = (record.get(it, "").encode(errors="replace").decode() for it in its)
                given = (cursor, next(words), now, record["kind"], *words, body)
                if db.execute(row, given).rowcount:
                    cursor += 1
                    self._uncounted += 1 + len(body) // 1024
            if not made or self._uncounted > self._at_once:
                self._let_go(db, 3600.0 if made else 0.0)
        new, self._next = cursor > self._next, cursor
        return cursor - 1 if new else 0

    def _let_go(self, db: sqlite3.Connection, late: float) -> None:
        """Count what came, and let the oldest go while a bound is passed, and a little more: not
        with each record. `late`: seconds that the oldest may be too old, and stay."""
        newest, count, bytes, lost, settled, settled_wall = state_of(db)
        most, largest = int(self.bounds["most"]), self.bounds["megabytes"] * (1 << 20)
        if count > most or bytes > largest:
            most, largest = most - most // 64, largest - largest / 64
        # A clock that jumps makes nothing old, also not what comes after it.
        now = min(self._opened_wall + clock.boot_now() - self._opened_at, time.time())
        due = now - self.bounds["hours"] * 3600
        last = went = freed = since = missed = 0
        rows = "select cursor, kept, length(body) from records order by cursor"
        for cursor, kept, size in db.execute(rows):
            if count - went <= most and bytes - freed <= largest and kept >= due - late:
                break
            last, went, freed, since = cursor, went + 1, freed + size + BESIDE, since or kept
            late = 0.0
        if went:
            settled = max(settled, min(self._had.values(), default=0))
            if last > settled and time.time() - settled_wall < FORGOTTEN:
                unread = "select count(*) from records where cursor > ? and cursor <= ?"
                missed = db.execute(unread, (settled, last)).fetchone()[0]
            db.execute("delete from records where cursor <= ?", (last,))
            gone = (last, went, missed, since)
            db.execute("insert or replace into gone values (?, ?, ?, ?)", gone)
        runs = "select missing, lost, last from gone where missing is not null order by last"
        for run in db.execute(f"{runs} desc limit -1 offset ?", (MOST_GONE,)).fetchall():
            widen = "update gone set missing = missing + ?, lost = lost + ? where last = "
            db.execute(f"{widen} (select min(last) from gone where last > ?)", run)
            db.execute("delete from gone where last = ?", run[2:])
        change = "update state set newest = ?, count = ?, bytes = ?, lost = ?, settled = ?"
        db.execute(change, (newest, count - went, bytes - freed, lost + missed, settled))
        self._uncounted = 0


def read_only(path: Path, do: str, args: Answer, owner: str) -> Answer:
    """Answer from the file of a worker that does not run. An error means: ask again."""
    database.refuse_link(path)
    with suppress(FileNotFoundError), closing(database.open_to_read(path)) as db:
        if (named := db.execute("select owner from state").fetchone()[0]) not in ("", owner):
            raise errors.StoreError(f"{path} is of the session {named!r:.80}")
        return READS[do](db, args)
    return nothing(do, args)


def lacks_newest(path: Path) -> None:
    """Note that this copy is older than what its session took: readers get a gap there."""
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as db, db:
        _lacks(db, state_of(db)[0] + 1, lost=True)


def _lacks(db: sqlite3.Connection, last: int, lost: bool) -> None:
    """Note a gap up to the cursor `last`. `lost`: True if no consumer had some of what is gone."""
    db.execute("insert into gone values (?, null, ?, ?)", (last, lost, time.time()))
    db.execute("update state set newest = ?, lost = lost + ?", (last, lost))


def nothing(do: str, args: Answer) -> Answer:
    """Answer where there is no file. A reader that had records hears that they are gone only from
    the next file: this one may come back."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        return READS[do](db, args)


def state_of(db: sqlite3.Connection) -> tuple[int, int, int, int, int, float]:
    """Newest cursor, number, bytes, lost, settled cursor, and the time of the last settling."""
    row = "select newest, count, bytes, lost, settled, settled_wall from state"
    newest, count, bytes, lost, settled, settled_wall = db.execute(row).fetchone()
    come = "select max(cursor), count(*), total(length(body) + ?) from records where cursor > ?"
    last, more, size = db.execute(come, (BESIDE, newest)).fetchone()
    return last or newest, count + more, bytes + int(size), lost, settled, settled_wall


def find(db: sqlite3.Connection, id: str, chat: str = "") -> dict[str, Any] | None:
    """The whole record of that id, or of a message of the chat by WhatsApp's id."""
    of_chat = f"kind = 'message' and message_id = ? and {_OF_CHAT}"
    asked = (of_chat, id, chat, chat) if chat else ("id = ?", id)
    return next(iter(_whole_records(db, *asked)), None)


def _page(db: sqlite3.Connection, args: Answer) -> Answer:
    """Return the records behind the cursor `after`; 0 = from the oldest. `life`: the cursors of
    the first record since the file was opened, and of the next one that arrives; not there while no
    worker runs, and so none arrives."""
    after, newest = args["after"], state_of(db)[0]
    begun, coming = args.get("life", (0, after + 1))
    had = after if after < coming else begun - 1
    records: list[dict[str, Any]] = []
    size = last = 0
    if found := _gap(db, after):
        records.append(found)
        after = last = found["cursor"]
    elif newest and (end := _last_given(db, had)) < after:
        # Another file gave this cursor, as when an older copy was put back. Its reader had all that
        # the copy holds, and would answer it a second time. Its gap is just before the next record,
        # and comes with it; a reader ahead of all that comes goes back, each time to the same
        # place, and gets what came since.
        behind = "select coalesce(min(cursor) - 1, 0) from records where cursor > ?"
        at = db.execute(behind, (had,)).fetchone()[0]
        if at or had < after:
            # Records that the other file gave behind this cursor are not here either.
            records.append({**gap(end + 1, max(after, at), time.time(), None), "cursor": at or end})
            after = at or end
    rows = "cursor, kept, cast(body as blob) from records where cursor > ? order by cursor limit ?"
    for cursor, kept, body in db.execute(f"select {rows}", (after, args["limit"])):
        size += 100 + len(body)
        if size > PAGE_BYTES and last:
            break
        last = cursor
        records.append(show(cursor, kept, body))
    oldest = db.execute("select min(cursor) from records").fetchone()[0] or newest + 1
    next = last or max(newest, after)
    more = next < newest
    return {"records": records, "next": next, "oldest": oldest, "newest": newest, "more": more}


def _last_given(db: sqlite3.Connection, after: int) -> int:
    """The cursor itself where this file gave it, or the next one; else the last that it gave."""
    here = "select max(cursor) from records where cursor <= ?1 + 1"
    gone = "select max(last) from gone where last <= ?1"
    return min(after, max(it or 0 for (it,) in db.execute(f"{here} union all {gone}", (after,))))


def _gap(db: sqlite3.Connection, after: int) -> dict[str, Any] | None:
    """For a reader behind records that went; one that begins gets what no consumer had."""
    runs = "select last, missing, since from gone where last > ?"
    if not after:
        after, runs = state_of(db)[4], f"{runs} and lost > 0"
    found = db.execute(f"{runs} order by last", (after,)).fetchall()
    if not found:
        return None
    (last, missing, since), *others = found
    counts = [missing and min(missing, last - after), *(other[1] for other in others)]
    return gap(after + 1, found[-1][0], since, None if None in counts else sum(counts))


def _state(db: sqlite3.Connection, args: Answer) -> Answer:
    """`settled`: all up to that cursor were delivered to all consumers."""
    newest, _, bytes, lost, settled, settled_wall = state_of(db)
    now, cursor = time.time(), min(args.get("settled", 0), newest)
    if "settled" in args and (settled < cursor or not 0 <= now - settled_wall < 3600):
        settled, settled_wall = max(cursor, settled), now
        db.execute("update state set settled = ?, settled_wall = ?", (settled, settled_wall))
    waiting = _behind(db, {"after": settled})["count"] if now - settled_wall < FORGOTTEN else 0
    behind = {it: _behind(db, {"after": at})["count"] for it, at in args.get("cursors", {}).items()}
    return {"waiting": waiting, "bytes": bytes, "newest": newest, "lost": lost, "behind": behind}


def _behind(db: sqlite3.Connection, args: Answer) -> Answer:
    """The number of records behind a cursor that were kept since a time, and a cursor before them
    and what went of those; `settled`: some consumer had all up to there."""
    since, (newest, _, _, _, settled, _) = args.get("since", 0.0), state_of(db)
    rows = "select count(*), min(cursor) from records where cursor > ? and kept >= ?"
    count, first = db.execute(rows, (args.get("after", 0), since)).fetchone()
    runs = "select min(last - coalesce(missing, 0)) from gone where since >= ?"
    went = db.execute(runs, (since,)).fetchone()[0]
    kept = first - 1 if count else newest
    return {"count": count, "before": min(kept, went or newest), "settled": settled}


def _find(db: sqlite3.Connection, args: Answer) -> Answer:
    found = {id: find(db, id, args["chat"]) for id in args["message_ids"][:MOST_FOUND]}
    return {"found": {id: _about(record) for id, record in found.items() if record is not None}}


def _name(db: sqlite3.Connection, args: Answer) -> Answer:
    """The number of a lid, or the lid of a number, by what arrived; "" = unknown."""
    row = "(select {} from records where kind = 'message' and {} = ?1 and alias <> ''"
    row += " and chat not like '%@g.us' order by cursor desc limit 1)"
    both = f"{row.format('alias', 'chat')}, {row.format('chat', 'alias')}"
    return {"name": db.execute(f"select coalesce({both}, '')", (args["chat"],)).fetchone()[0]}


def _unread(db: sqlite3.Connection, args: Answer) -> Answer:
    """Return the messages of others that arrived since the chat was marked, newest first."""
    chat, newest = args["chat"], state_of(db)[0]
    since = db.execute("select max(cursor) from marks where chat = ?", (chat,)).fetchone()[0] or 0
    rows = f"kind = 'message' and cursor > ? and {_OF_CHAT} order by cursor desc limit ?"
    shown = []
    for record in _whole_records(db, rows, since, chat, chat, MOST_UNREAD):
        if not record.get("from_me") and (id := record.get("message_id")):
            about = _about(record)
            shown.append((id, about["chat"], about["sender"]))
    return {"messages": shown, "newest": newest}


def _mark(db: sqlite3.Connection, args: Answer) -> Answer:
    """Note that the messages of a chat up to the cursor were marked as read."""
    db.execute("insert or replace into marks values (?, ?)", (args["chat"], args["cursor"]))
    return {}


READS: Mapping[str, Callable[[sqlite3.Connection, Answer], Answer]] = {
    "messages": _page,
    "messages_state": _state,
    "messages_behind": _behind,
    "messages_find": _find,
    "messages_name": _name,
    "messages_unread": _unread,
}
"""Name of a call of the link → the question that it asks."""
CALLS = {**READS, "messages_marked": _mark}


def _about(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return chat and sender as WhatsApp named them, where the record has other names for its
    reader."""
    raw = record.get(f"{PRIVATE}raw", {})
    return {
        "chat": raw.get("chat") or record.get("chat", ""),
        "sender": raw.get("sender") or record.get("sender", ""),
        "from_me": record.get("from_me") is True,
        "type": record.get("type", ""),
        "text": record.get("text", "")[:LONGEST_WORD],
    }


def _whole_records(db: sqlite3.Connection, rows: str, *given: object) -> list[dict[str, Any]]:
    found = db.execute(f"select cursor, kept, body from records where {rows}", given)
    whole = ((cursor, kept, read(body)) for cursor, kept, body in found)
    return [{"cursor": cursor, **body, "kept": kept} for cursor, kept, body in whole if body]
