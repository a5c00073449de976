"""What can still be read of a damaged database, else of its last verified copy."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from agent.core.model import Instance
from agent.store.connect import connect_to_read
from agent.store.instances import decode_instance
from agent.store.sums import COLUMNS, is_whole, sum_of

MOST_HISTORY = 10_000

_HISTORY = (
    "select cursor, wall, kind, category, instance, sentence, detail from journal"
    f" order by cursor desc limit {MOST_HISTORY}"
)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Salvage:
    instances: Sequence[Instance] = ()
    """Of the damaged file alone: a copy may hold some that were deleted since."""
    records: Mapping[str, str] = field(default_factory=dict)
    """JSON of a session record by instance."""
    keys: Sequence[Row] = ()
    facts: Sequence[Row] = ()
    history: Sequence[Row] = ()
    keys_from: Path | None = None
    history_from: Path | None = None


def salvage(damaged: Path | None, copy: Path) -> Salvage:
    """Each table from the first file that gives it whole. Never raises."""
    first = [damaged] if damaged is not None and damaged.exists() else []
    both = [*first, *([copy] if copy.exists() else [])]
    rows, _ = _first_whole(first, "instances")
    records, _ = _first_whole(both, "sessions")
    keys, keys_from = _first_whole(both, "keys")
    facts, _ = _first_whole(first, "facts")
    history, history_from = _first_whole(both, "journal")
    return Salvage(
        [instance for row in rows if (instance := decode_instance(row)) is not None],
        {row[0]: row[1] for row in records if _is_json(row[1])},
        [row for row in keys if _is_json(row[2])],
        facts,
        [row for row in history if _is_json(row[6])],
        keys_from,
        history_from,
    )


def insert_salvage(db: Database, saved: Salvage) -> list[str]:
    """Put keys, facts and history into a new database; sentences of what was put there."""
    sentences = []
    keys = _insert(db, "insert into keys values (?, ?, ?, ?, ?, ?)", saved.keys, summed=True)
    if keys and saved.keys_from:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(saved.keys_from.stat().st_mtime))
        sentences.append(
            f"{keys} API keys were read from {saved.keys_from.name} of {at}:"
            " revoke again what was revoked since"
        )
    _insert(db, "insert into facts values (?, ?, ?)", saved.facts, summed=True)
    history = _insert(db, "insert into journal values (?, ?, ?, ?, ?, ?, ?)", saved.history)
    if history and saved.history_from:
        sentences.append(f"{history} entries of history were read from {saved.history_from.name}")
    return sentences


def _first_whole(sources: Sequence[Path], table: str) -> tuple[list[Row], Path | None]:
    for source in sources:
        try:
            with contextlib.closing(connect_to_read(source)) as db:
                return (_history if table == "journal" else _summed(table))(db), source
        except (sqlite3.Error, ValueError, OverflowError):
            continue  # that is why there is another source
    return [], None


def _history(db: Database) -> list[Row]:
    return db.execute(_HISTORY).fetchall()


def _summed(table: str) -> Callable[[Database], list[Row]]:
    """Its rows without their sums, and without those that a sum does not confirm."""
    columns = COLUMNS[table]

    def read(db: Database) -> list[Row]:
        names = ", ".join((*columns, "sum"))
        rows = db.execute(f"select {names} from {table}").fetchall()
        return [row[:-1] for row in rows if is_whole(row)]

    return read


def _insert(db: Database, sql: str, rows: Sequence[Row], *, summed: bool = False) -> int:
    """A row that the schema refuses was damaged; the others are kept."""
    inserted = 0
    for row in rows:
        try:
            db.conn.execute(sql, (*row, sum_of(*row)) if summed else row)
        except (sqlite3.Error, TypeError, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CONSTRAINT) & 0xFF not in (
                sqlite3.SQLITE_CONSTRAINT,
                sqlite3.SQLITE_MISMATCH,
            ):
                raise
            continue
        inserted += 1
    return inserted


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
