"""Rows of instances and of their sessions' records."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance, InstanceId, SessionRecord, parse_instance_id
from agent.errors import InvalidRequest, NotFound, Refused

_OF_RECORD = tuple(known.name for known in fields(SessionRecord))


SELECT = (
    "select id, engine, enabled, settings, created_wall, record from instances"
    " left join sessions on instance = id order by id"
)


def select_instances(db: Database) -> list[tuple[Instance, SessionRecord]]:
    rows = db.execute(SELECT).fetchall()
    read = ((decode_instance(row), decode_record(row[5])) for row in rows)
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
    if not db.execute(sql, row).rowcount:
        raise NotFound(f"cannot save {instance.id}: there is no such instance")


def update_record(db: Database, id: InstanceId, record: str) -> None:
    sql = (
        "insert into sessions select id, ? from instances where id = ?"
        " on conflict do update set record = excluded.record"
    )
    if not db.execute(sql, [record, id]).rowcount:
        raise NotFound(f"cannot save the session of {id}: there is no such instance")


def delete_instance(db: Database, id: InstanceId) -> None:
    if not db.execute("delete from instances where id = ?", [id]).rowcount:
        raise NotFound(f"cannot remove {id}: there is no such instance")


def encode_record(record: SessionRecord) -> str:
    # Its values have no dataclass in them: asdict() would copy each value on its own.
    return json.dumps({name: getattr(record, name) for name in _OF_RECORD})


def decode_record(text: str | None) -> SessionRecord:
    """A key that is missing or of another kind takes its default: another version wrote it."""
    plain, known = SessionRecord(), dict[str, Any]()
    with suppress(TypeError, ValueError, RecursionError):
        content = dict(json.loads(text or "{}"))
        for name in set(_OF_RECORD).intersection(content):
            with suppress(TypeError, ValueError):
                known[name] = type(getattr(plain, name))(content[name])
    return SessionRecord(**known)


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
