"""Rows of instances and their records, of the history, and of API keys."""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack, get_type_hints

import msgspec
from sqlite_utils import Database

from agent.core.model import Category, Instance, InstanceId, JournalEntry, SessionRecord
from agent.core.words import parse_instance_id
from agent.errors import InvalidRequest, NotFound, Refused

SELECT = (
    "select id, engine, enabled, settings, created_wall, record from instances"
    " left join sessions on instance = id order by id"
)


def select_instances(db: Database) -> list[tuple[Instance, SessionRecord]]:
    read = ((decode_instance(row), decode_record(row[5])) for row in db.execute(SELECT).fetchall())
    return [(instance, record) for instance, record in read if instance is not None]


def insert_instance(db: Database, instance: Instance, settings: str, record: str) -> None:
    row = [instance.id, instance.engine, int(instance.enabled), settings]
    sql = "insert into instances values (?, ?, ?, ?, ?) on conflict do nothing"
    if not db.execute(sql, [*row, float(instance.created_wall)]).rowcount:
        raise Refused(f"cannot add {instance.id}: there is one of that id", code="exists")
    update_record(db, instance.id, record)


def update_instance(db: Database, instance: Instance, settings: str) -> None:
    row = [instance.engine, int(instance.enabled), settings, instance.id]
    sql = "update instances set engine = ?, enabled = ?, settings = ? where id = ?"
    _change_one(db, sql, row, f"save {instance.id}")


def update_record(db: Database, id: InstanceId, record: str) -> None:
    sql = "insert into sessions select id, ? from instances where id = ?"
    sql = f"{sql} on conflict do update set record = excluded.record"
    _change_one(db, sql, [record, id], f"save the session of {id}")


def delete_instance(db: Database, id: InstanceId) -> None:
    _change_one(db, "delete from instances where id = ?", [id], f"remove {id}")


def _change_one(db: Database, sql: str, row: Sequence[Any], doing: str) -> None:
    if not db.execute(sql, row).rowcount:
        raise NotFound(f"cannot {doing}: there is no such instance")


def encode_record(record: SessionRecord) -> str:
    return msgspec.json.encode(record).decode()


def decode_record(text: str | None) -> SessionRecord:
    """Read a record. A missing key, or one of another kind, takes its default: another version
    wrote it."""
    known: dict[str, Any] = {}
    with suppress(TypeError, ValueError, RecursionError):
        content = dict(json.loads(text or "{}"))
        for name, kind in get_type_hints(SessionRecord).items():
            with suppress(KeyError, msgspec.ValidationError):
                known[name] = msgspec.convert(content[name], kind)
    return SessionRecord(**known)


def decode_instance(row: Sequence[Any]) -> Instance | None:
    """Return the instance of id, engine, enabled, settings, created_wall; None where they make no
    sense."""
    with suppress(TypeError, ValueError, RecursionError, InvalidRequest):
        id, settings = parse_instance_id(row[0]), json.loads(row[3])
        if isinstance(settings, dict) and row[1]:
            return Instance(id, row[1], bool(row[2]), settings, row[4])
    return None


def encode_entry(entry: JournalEntry, now_wall: float) -> list[Any]:
    """Return a row's values. The caller's thread does this: a wrong value fails its caller only."""
    # SQLite takes no lone surrogates, and a text from outside may have them.
    sentence = entry.sentence.encode("utf-8", "backslashreplace").decode()
    detail = json.dumps(dict(entry.detail), default=str)
    wall = entry.wall or now_wall
    return [wall, entry.kind, str(entry.category), entry.instance, sentence, detail]


def insert_entries(
    db: Database, entries: Collection[JournalEntry], rows: Collection[list[Any]]
) -> list[JournalEntry]:
    """Return the entries as they were stored, with their cursors."""
    sql = "insert into journal values (null, ?, ?, ?, ?, ?, ?)"
    each = zip(entries, rows, strict=True)
    return [replace(e, wall=row[0], cursor=db.execute(sql, row).lastrowid or 0) for e, row in each]


class Wanted(TypedDict, total=False):
    before: int | None
    after: int | None
    """Entries come oldest first if this is given."""
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
    values = [*given.values(), *kinds, max(1, min(wanted.get("limit", 100), 1000))]
    return [_decode_entry(row) for row in db.query(sql, values)]


def trim(
    db: Database, now_wall: float, *, rows: int = 200_000, days: float = 90.0, least: int = 10_000
) -> int:
    """Delete the oldest rows beyond the bounds, 1000 at most; return how many went. The newest
    `least` stay whatever their age: a clock that jumps must not empty the history."""
    newest = db.execute("select max(cursor) from journal").fetchone()[0] or 0
    return db.execute(
        "delete from journal where cursor in ("
        " select cursor from (select cursor, wall from journal order by cursor limit ?)"
        " where cursor <= ? or (wall < ? and cursor <= ?))",
        [1000, newest - rows, now_wall - days * 86_400, newest - least],
    ).rowcount


def _decode_entry(row: dict[str, Any]) -> JournalEntry:
    """Read an entry. A garbled category or detail is left out; the rest of the row is read."""
    try:
        category, detail = Category(row["category"]), json.loads(row["detail"])
    except (ValueError, RecursionError):
        category, detail = Category.SYSTEM, {}
    detail = detail if isinstance(detail, dict) else {}
    return JournalEntry(**{**row, "category": category, "detail": detail})


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    """8 characters; also the beginning of the token, so that an operator can tell keys apart."""
    hash: str
    """SHA-256 of the whole token, in hex."""
    scopes: tuple[str, ...]
    """read, operate, admin, instance:<id>"""
    name: str
    created_wall: float


def list_keys(db: Database) -> list[KeyRow]:
    rows = db.query("select * from keys order by created_wall, id")
    return [KeyRow(**{**row, "scopes": tuple(json.loads(row["scopes"]))}) for row in rows]


def insert_key(db: Database, key: KeyRow) -> None:
    row = [key.id, key.hash, json.dumps(key.scopes), key.name, float(key.created_wall)]
    sql = "insert into keys values (?, ?, ?, ?, ?) on conflict (id) do nothing"
    if not db.execute(sql, row).rowcount:
        raise Refused(f"cannot add key {key.id}: there is one of that id", code="exists")
