"""Rows of instances and of their sessions' records."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance, InstanceId, SessionRecord, parse_instance_id
from agent.errors import InvalidRequest, NotFound, Refused

_OF_RECORD = tuple(known.name for known in fields(SessionRecord))


def select_instances(db: Database) -> list[tuple[Instance, SessionRecord]]:
    rows = db.execute(
        "select id, engine, enabled, settings, created_wall, record from instances"
        " left join sessions on instance = id order by id"
    )
    return [
        (instance, decode_record(row[5]))
        for row in rows.fetchall()
        if (instance := decode_instance(row)) is not None
    ]


def insert_instance(db: Database, instance: Instance, settings: str, record: str) -> None:
    if next(iter(db.query("select 1 from instances where id = ?", [instance.id])), None):
        raise Refused(f"cannot add {instance.id}: there is one of that id", code="exists")
    row = [instance.id, instance.engine, int(instance.enabled), settings]
    db.execute("insert into instances values (?, ?, ?, ?, ?)", [*row, float(instance.created_wall)])
    update_record(db, instance.id, record)


def update_instance(db: Database, instance: Instance, settings: str) -> None:
    row = [instance.engine, int(instance.enabled), settings, instance.id]
    sql = "update instances set engine = ?, enabled = ?, settings = ? where id = ?"
    if not db.execute(sql, row).rowcount:
        raise NotFound(f"cannot save {instance.id}: there is no such instance")


def update_record(db: Database, id: InstanceId, record: str) -> None:
    if not next(iter(db.query("select 1 from instances where id = ?", [id])), None):
        raise NotFound(f"cannot save the session of {id}: there is no such instance")
    sql = "insert into sessions values (?, ?) on conflict do update set record = excluded.record"
    db.execute(sql, [id, record])


def delete_instance(db: Database, id: InstanceId) -> None:
    if not db.execute("delete from instances where id = ?", [id]).rowcount:
        raise NotFound(f"cannot remove {id}: there is no such instance")


def encode_settings(instance: Instance) -> str:
    return json.dumps(dict(instance.settings))


def encode_record(record: SessionRecord) -> str:
    # Its values have no dataclass in them: asdict() would copy each value on its own.
    return json.dumps({name: getattr(record, name) for name in _OF_RECORD})


def decode_record(text: str | None) -> SessionRecord:
    """A key that is missing or of another kind takes its default: another version wrote it."""
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        content = {}
    content = content if isinstance(content, dict) else {}
    plain = SessionRecord()
    known: dict[str, Any] = {}
    for column in fields(SessionRecord):
        if column.name in content:
            known[column.name] = _as_kind_of(getattr(plain, column.name), content[column.name])
    return SessionRecord(**known)


def _as_kind_of(default: Any, value: Any) -> Any:
    try:
        return type(default)(value)
    except (TypeError, ValueError):
        return default


def decode_instance(row: Sequence[Any]) -> Instance | None:
    """Of id, engine, enabled, settings, created_wall; None where they make no sense."""
    try:
        settings = json.loads(row[3])
        id = parse_instance_id(row[0])
    except (TypeError, ValueError, RecursionError, InvalidRequest):
        return None
    if not isinstance(settings, dict) or not row[1]:
        return None
    return Instance(id, row[1], bool(row[2]), settings, row[4])
