"""API keys: a hash, never the key itself."""

import json
from dataclasses import dataclass

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
    rows = db.query("select * from keys order by created_wall, id")
    return [KeyRow(**{**row, "scopes": tuple(json.loads(row["scopes"]))}) for row in rows]


def insert_key(db: Database, key: KeyRow) -> None:
    row = [key.id, key.hash, json.dumps(key.scopes), key.name, float(key.created_wall)]
    sql = "insert into keys values (?, ?, ?, ?, ?) on conflict (id) do nothing"
    if not db.execute(sql, row).rowcount:
        raise Refused(f"cannot add key {key.id}: there is one of that id", code="exists")
