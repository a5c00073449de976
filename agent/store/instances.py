"""Rows of instances and of what must be remembered of their sessions."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance, InstanceId, SessionRecord
from agent.errors import NotFound, Refused


def select_instances(db: Database) -> list[tuple[Instance, SessionRecord]]:
    rows = db.query(
        "select id, engine, enabled, settings, created_wall, record from instances"
        " left join sessions on instance = id order by id"
    )
    return [(_decode(row), decode_record(row["record"])) for row in rows]


def insert_instance(db: Database, instance: Instance, settings: str, record: str) -> None:
    if next(iter(db.query("select 1 from instances where id = ?", [instance.id])), None):
        raise Refused(f"cannot add {instance.id}: there is one of that id", code="exists")
    db.execute(
        "insert into instances (id, engine, enabled, settings, created_wall)"
        " values (?, ?, ?, ?, ?)",
        [
            instance.id,
            instance.engine,
            int(instance.enabled),
            settings,
            instance.created_wall,
        ],
    )
    update_record(db, instance.id, record)


def update_instance(db: Database, instance: Instance, settings: str) -> None:
    changed = db.execute(
        "update instances set engine = ?, enabled = ?, settings = ? where id = ?",
        [instance.engine, int(instance.enabled), settings, instance.id],
    )
    if not changed.rowcount:
        raise NotFound(f"cannot save {instance.id}: there is no such instance")


def update_record(db: Database, id: InstanceId, record: str) -> None:
    if not next(iter(db.query("select 1 from instances where id = ?", [id])), None):
        raise NotFound(f"cannot save the session of {id}: there is no such instance")
    db.execute(
        "insert into sessions (instance, record) values (?, ?)"
        " on conflict (instance) do update set record = excluded.record",
        [id, record],
    )


def delete_instance(db: Database, id: InstanceId) -> None:
    if not db.execute("delete from instances where id = ?", [id]).rowcount:
        raise NotFound(f"cannot remove {id}: there is no such instance")


def encode_settings(instance: Instance) -> str:
    return json.dumps(dict(instance.settings))


def encode_record(record: SessionRecord) -> str:
    return json.dumps(asdict(record))


def decode_record(text: str | None) -> SessionRecord:
    """What is missing or of another kind takes its default: older and newer versions wrote it."""
    content = json.loads(text) if text else {}
    plain = SessionRecord()
    known: dict[str, Any] = {}
    for one in fields(SessionRecord):
        if one.name in content:
            known[one.name] = _as_kind_of(getattr(plain, one.name), content[one.name])
    return SessionRecord(**known)


def _as_kind_of(default: Any, value: Any) -> Any:
    try:
        return type(default)(value)
    except (TypeError, ValueError):
        return default


def _decode(row: Mapping[str, Any]) -> Instance:
    return Instance(
        InstanceId(row["id"]),
        row["engine"],
        bool(row["enabled"]),
        json.loads(row["settings"]),
        row["created_wall"],
    )
