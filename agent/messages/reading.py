"""What is read from messages.db: the same whether its worker answers, or the agent reads the file
of a worker that does not run."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.errors import InvalidRequest
from agent.messages.database import open_to_read
from agent.messages.record import LONGEST_WORD, PRIVATE, erased, gap, read, show

Answer = Mapping[str, Any]
Read = Callable[[sqlite3.Connection, Mapping[str, Any]], Answer]

TABLES = """
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
"""
MOST_RECORDS = 1000
"""Of one page."""
PAGE_BYTES = 900 * 1024
"""Of one page on the link, where each sign beyond ASCII is escaped."""
MOST_FOUND = 200
MOST_UNREAD = 1000
FORGOTTEN_AFTER = 7 * 86_400.0
"""Seconds after which a session that no consumer reads has none waiting, and loses none."""
LARGEST = 1 << 53


def read_only(path: Path, do: str, args: Mapping[str, Any]) -> Answer:
    """From the file of a worker that does not run. An error means: ask again."""
    try:
        db = open_to_read(path)
    except FileNotFoundError:
        return nothing(do, args)
    with closing(db):
        return READS[do](db, args)


def nothing(do: str, args: Mapping[str, Any]) -> Answer:
    """Where no file is: a reader that had records hears that they are gone."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        return READS[do](db, args)


def state_of(db: sqlite3.Connection) -> tuple[int, int, int, int, int, float]:
    """Newest cursor, number, bytes, lost, settled cursor, and when that was told."""
    row = "select newest, count, bytes, lost, settled, settled_wall from state"
    found: tuple[int, int, int, int, int, float] = db.execute(row).fetchone()
    return found


def find(db: sqlite3.Connection, id: str, chat: str = "") -> dict[str, Any] | None:
    """The whole record of that id, or of a message of the chat by WhatsApp's id."""
    if not chat:
        return next(iter(_whole_records(db, "id = ?", id)), None)
    # A person's other name is the chat's too, but in a group.
    names = "(chat = ? or (alias = ? and chat not like '%@g.us'))"
    rows = f"kind = 'message' and message_id = ? and {names}"
    return next(iter(_whole_records(db, rows, id, chat, chat)), None)


def _page(db: sqlite3.Connection, args: Mapping[str, Any]) -> Answer:
    """What follows the cursor `after`: 0 = from the oldest."""
    after, limit = whole(args, "after", 0), whole(args, "limit", 100)
    newest = state_of(db)[0]
    records: list[dict[str, Any]] = []
    size = last = 0
    if after > newest:
        # What was kept is gone, and this file is another one: its reader has nothing of it.
        records.append(erased(after, time.time()))
        after = 0
    elif found := _gap(db, after):
        records.append(found)
        after = last = found["cursor"]
    rows = "select cursor, kept, cast(body as blob) from records where cursor > ?"
    rows += " order by cursor limit ?"
    for cursor, kept, body in db.execute(rows, (after, max(1, min(limit, MOST_RECORDS)))):
        size += 100 + (len(body) if body.isascii() else len(body) * 3)
        if size > PAGE_BYTES and last:
            break
        last = cursor
        records.append(show(cursor, kept, body))
    oldest = db.execute("select min(cursor) from records").fetchone()[0] or newest + 1
    next = last or newest
    more = next < newest
    return {"records": records, "next": next, "oldest": oldest, "newest": newest, "more": more}


def _gap(db: sqlite3.Connection, after: int) -> dict[str, Any] | None:
    """For a reader behind records that went; one that begins gets what no consumer had."""
    settled = state_of(db)[4]
    runs = "select first, last, missing, since from gone where last > ?"
    if not after:
        after, runs = settled, f"{runs} and lost > 0"
    found = db.execute(f"{runs} order by last", (after,)).fetchall()
    if not found:
        return None
    (first, last, missing, since), *others = found
    if missing is not None and first <= after:
        missing = min(missing, last - after)
    known = [each for each in (missing, *(other[2] for other in others)) if each is not None]
    many = sum(known) if len(known) == len(found) else None
    return gap(max(first, after + 1), found[-1][1], since, many)


def _state(db: sqlite3.Connection, _args: Mapping[str, Any]) -> Answer:
    newest, _, bytes, lost, settled, settled_wall = state_of(db)
    waiting = 0
    if time.time() - settled_wall < FORGOTTEN_AFTER:
        waiting = _behind(db, {"after": settled})["count"]
    return {"waiting": waiting, "bytes": bytes, "newest": newest, "lost": lost}


def _behind(db: sqlite3.Connection, args: Mapping[str, Any]) -> Answer:
    """The number of records behind a cursor that were kept since a time, and a cursor before
    them."""
    rows = "select count(*), min(cursor) from records where cursor > ? and kept >= ?"
    count, first = db.execute(rows, (whole(args, "after"), args.get("since", 0.0))).fetchone()
    return {"count": count, "before": first - 1 if count else state_of(db)[0]}


def _find(db: sqlite3.Connection, args: Mapping[str, Any]) -> Answer:
    chat, ids = word(args, "chat"), args.get("message_ids")
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise InvalidRequest("cannot find messages without their ids", field="message_ids")
    found = {id: find(db, id, chat) for id in ids[:MOST_FOUND]}
    return {"found": {id: _about(record) for id, record in found.items() if record is not None}}


def _name(db: sqlite3.Connection, args: Mapping[str, Any]) -> Answer:
    """The number of a lid, or the lid of a number, by what arrived; "" = unknown."""
    for mine, other in (("chat", "alias"), ("alias", "chat")):
        row = (
            f"select {other} from records where kind = 'message' and {mine} = ? and alias <> ''"
            " and chat not like '%@g.us' order by cursor desc limit 1"
        )
        if found := db.execute(row, (word(args, "chat"),)).fetchone():
            return {"name": found[0]}
    return {"name": ""}


def _unread(db: sqlite3.Connection, args: Mapping[str, Any]) -> Answer:
    """Newest first, the messages of others that arrived since the chat was marked."""
    chat = word(args, "chat")
    marked = db.execute("select cursor from marks where chat = ?", (chat,)).fetchone()
    since = marked[0] if marked else 0
    rows = "kind = 'message' and {} = ? and cursor > ? order by cursor desc limit ?"
    found = _whole_records(db, rows.format("chat"), chat, since, MOST_UNREAD)
    others = _whole_records(db, rows.format("alias <> '' and alias"), chat, since, MOST_UNREAD)
    found += [it for it in others if it["chat"] != chat and not it["chat"].endswith("@g.us")]
    found.sort(key=lambda record: record["cursor"], reverse=True)
    theirs = [it for it in found if not it.get("from_me") and it.get("message_id")]
    named = [(it["message_id"], _about(it)) for it in theirs[:MOST_UNREAD]]
    shown = [(id, about["chat"], about["sender"]) for id, about in named]
    return {"messages": shown, "newest": state_of(db)[0]}


READS: Mapping[str, Read] = {
    "messages": _page,
    "messages_state": _state,
    "messages_behind": _behind,
    "messages_find": _find,
    "messages_name": _name,
    "messages_unread": _unread,
}
"""By the names of the link's calls."""


def _about(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Chat and sender as WhatsApp named them with it, where its reader gets other names."""
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
    return [{"cursor": cursor, **its, "kept": kept} for cursor, kept, its in whole if its]


def whole(args: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = args.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < LARGEST:
        raise InvalidRequest(f"cannot use {key}: not a whole number", field=key)
    return value


def word(args: Mapping[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_WORD:
        raise InvalidRequest(f"cannot use {key}: not a text", field=key)
    return value
