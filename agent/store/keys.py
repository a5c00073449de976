"""API keys: a hash, never the key itself."""

import json
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from agent.errors import Refused


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
    return [_decode(row) for row in db.query("select * from keys order by created_wall, id")]


def insert_key(db: Database, key: KeyRow) -> None:
    if next(iter(db.query("select 1 from keys where id = ?", [key.id])), None):
        raise Refused(f"cannot add key {key.id}: there is one of that id", code="exists")
    row = [key.id, key.hash, json.dumps(key.scopes), key.name, float(key.created_wall)]
    db.execute(
        "insert into keys (id, hash, scopes, name, created_wall) values (?, ?, ?, ?, ?)", row
    )


def delete_key(db: Database, id: str) -> bool:
    return db.execute("delete from keys where id = ?", [id]).rowcount > 0


def _decode(row: dict[str, Any]) -> KeyRow:
    return KeyRow(
        row["id"], row["hash"], tuple(json.loads(row["scopes"])), row["name"], row["created_wall"]
    )
