"""History: append-only rows with a growing cursor, bounded in number and age."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from sqlite_utils import Database

from agent.core.model import Category, InstanceId, JournalEntry

LONGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the history is kept."""

    rows: int = 200_000
    days: float = 90.0
    least: int = 10_000
    """So many newest rows stay whatever their age: a clock that jumps must not empty it."""
    step: int = 1000
    """At most so many rows are deleted with one commit."""


def encode(entry: JournalEntry, now_wall: float) -> list[Any]:
    """A row's values. Here, in the caller's thread, so that a wrong value fails its caller only."""
    # SQLite takes no lone surrogates, and a text from outside may have them.
    sentence = entry.sentence.encode("utf-8", "backslashreplace").decode()
    detail = json.dumps(dict(entry.detail), default=str)
    wall = entry.wall or now_wall
    return [wall, entry.kind, str(entry.category), entry.instance, sentence, detail]


def insert_entries(
    db: Database, entries: Collection[JournalEntry], rows: Collection[list[Any]]
) -> list[JournalEntry]:
    """The entries as they were stored, with their cursors."""
    sql = "insert into journal values (null, ?, ?, ?, ?, ?, ?)"
    cursors = [db.execute(sql, row).lastrowid or 0 for row in rows]
    each = zip(entries, rows, cursors, strict=True)
    return [replace(entry, wall=row[0], cursor=cursor) for entry, row, cursor in each]


class Wanted(TypedDict, total=False):
    """Which entries."""

    before: int | None
    after: int | None
    """Oldest first, then."""
    limit: int
    kinds: Collection[str]


def select_entries(
    db: Database, instance: InstanceId | None = None, **wanted: Unpack[Wanted]
) -> list[JournalEntry]:
    after, kinds = wanted.get("after"), tuple(wanted.get("kinds", ()))
    asked = {"instance = ?": instance, "cursor < ?": wanted.get("before"), "cursor > ?": after}
    given = {condition: value for condition, value in asked.items() if value is not None}
    where = ["true", *given, *([f"kind in ({', '.join('?' * len(kinds))})"] if kinds else [])]
    order = "desc" if after is None else "asc"
    sql = f"select * from journal where {' and '.join(where)} order by cursor {order} limit ?"
    values = [*given.values(), *kinds, max(1, min(wanted.get("limit", 100), LONGEST_PAGE))]
    return [_decode(row) for row in db.query(sql, values)]


def trim(db: Database, bounds: Bounds, now_wall: float) -> int:
    """Delete the oldest rows beyond the bounds, one step's worth; return how many went."""
    newest = db.execute("select max(cursor) from journal").fetchone()[0]
    if newest is None:
        return 0
    oldest = now_wall - bounds.days * 86_400
    return db.execute(
        "delete from journal where cursor in ("
        " select cursor from (select cursor, wall from journal order by cursor limit ?)"
        " where cursor <= ? or (wall < ? and cursor <= ?))",
        [bounds.step, newest - bounds.rows, oldest, newest - bounds.least],
    ).rowcount


def _decode(row: dict[str, Any]) -> JournalEntry:
    """A garbled category or detail costs itself: the rest of the row is read all the same."""
    try:
        category, detail = Category(row["category"]), json.loads(row["detail"])
    except (ValueError, RecursionError):
        category, detail = Category.SYSTEM, {}
    detail = detail if isinstance(detail, dict) else {}
    return JournalEntry(**{**row, "category": category, "detail": detail})
