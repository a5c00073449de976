"""API keys: a hash, never the key itself. And facts: small texts by name that outlive the agent; no
decision about a session depends on them."""

import json
from collections.abc import Collection, Mapping
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


def delete_key(db: Database, id: str) -> bool:
    return db.execute("delete from keys where id = ?", [id]).rowcount > 0


def read_facts(db: Database, prefix: str) -> dict[str, str]:
    """All facts whose name begins so."""
    rows = db.execute(
        "select name, value from facts where substr(name, 1, ?) = ?", [len(prefix), prefix]
    )
    return dict(rows.fetchall())


def write_facts(db: Database, facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        db.execute("replace into facts (name, value) values (?, ?)", [name, value])


def forget_facts(db: Database, names: Collection[str]) -> None:
    for name in names:
        db.execute("delete from facts where name = ?", [name])
