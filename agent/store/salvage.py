"""What can still be read of a damaged database, else of its last verified copy."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.store.connect import connect_to_read
from agent.store.migrations import APPLICATION_ID

MOST_HISTORY = 10_000

_QUERIES = {
    "sessions": "select instance, record from sessions",
    "keys": "select id, hash, scopes, name, created_wall from keys",
    "journal": "select cursor, wall, kind, category, instance, sentence, detail from journal"
    f" order by cursor desc limit {MOST_HISTORY}",
}

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Salvage:
    records: Mapping[str, str] = field(default_factory=dict)
    """JSON of a session record by instance."""
    keys: Sequence[Row] = ()
    history: Sequence[Row] = ()
    keys_from: Path | None = None
    history_from: Path | None = None


def salvage(sources: Sequence[Path]) -> Salvage:
    """Each table from the first source that gives it whole. Never raises."""
    records, _ = _first_whole(sources, "sessions")
    keys, keys_from = _first_whole(sources, "keys")
    history, history_from = _first_whole(sources, "journal")
    return Salvage(
        {row[0]: row[1] for row in records if _is_json(row[1])},
        [row for row in keys if _is_json(row[2])],
        [row for row in history if _is_json(row[6])],
        keys_from,
        history_from,
    )


def insert_salvage(db: Database, saved: Salvage) -> list[str]:
    """Put keys and history into a new database; sentences of what was put there."""
    told = []
    keys = _insert(db, "insert into keys values (?, ?, ?, ?, ?)", saved.keys)
    if keys and saved.keys_from:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(saved.keys_from.stat().st_mtime))
        told.append(
            f"{keys} API keys were read from {saved.keys_from.name} of {at}:"
            " revoke again what was revoked since"
        )
    history = _insert(db, "insert into journal values (?, ?, ?, ?, ?, ?, ?)", saved.history)
    if history and saved.history_from:
        told.append(f"{history} entries of history were read from {saved.history_from.name}")
    return told


def _first_whole(sources: Sequence[Path], table: str) -> tuple[list[Row], Path | None]:
    for source in sources:
        try:
            with contextlib.closing(connect_to_read(source)) as db:
                if db.execute("pragma application_id").fetchone()[0] == APPLICATION_ID:
                    return db.execute(_QUERIES[table]).fetchall(), source
        except sqlite3.Error:
            continue  # that is why there is another source
    return [], None


def _insert(db: Database, sql: str, rows: Sequence[Row]) -> int:
    """A row that the schema refuses was damaged; the others are kept."""
    inserted = 0
    for row in rows:
        try:
            db.conn.execute(sql, row)
        except sqlite3.IntegrityError:
            continue
        inserted += 1
    return inserted


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
