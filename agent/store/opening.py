"""From a path to a connection that can be trusted: examine, set aside, rebuild, migrate."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from agent.errors import SchemaTooNew, StoreError
from agent.store.connect import connect, connect_to_read, explain_opening
from agent.store.errors import code_of, explain
from agent.store.instances import decode_instance
from agent.store.keys import list_keys
from agent.store.migrations import (
    APPLICATION_ID,
    FIRST_TABLES,
    Migration,
    migrate,
    schema_of,
    schema_version,
)
from agent.store.rebuild import (
    COMPANIONS,
    Opening,
    build,
    companion,
    set_aside,
)

MIGRATION = "migration"
UNUSABLE = ("disk_full", MIGRATION)
"""Codes of failures that another database in its place would not cure."""


def open_checked(opening: Opening) -> tuple[Database, list[str]]:
    """A connection to a whole database of the newest schema, and what had to be repaired."""
    try:
        return _open(opening)
    except OSError as error:
        raise StoreError(f"cannot open {opening.path}: {error}") from error


def _open(opening: Opening) -> tuple[Database, list[str]]:
    path = opening.path
    damage = find_damage(path, opening.migrations) if path.exists() else ""
    if path.exists() and not damage:
        try:
            return _use(opening)
        except StoreError as error:
            # All checks passed, and still its bytes stop the start: they must not.
            if error.code in UNUSABLE or not _a_new_one_would_open(path):
                raise
            damage = str(error)
    sentences = []
    if damage:
        kept = set_aside(path, opening.now_wall())
        sentences.append(f"the database was damaged ({damage}); it is kept as {kept.name}")
    sentences += build(opening, _whole_copy(opening))
    db, more = _use(opening)
    return db, [*sentences, *more]


def _use(opening: Opening) -> tuple[Database, list[str]]:
    """Connect and migrate."""
    path = opening.path
    db = connect(path)
    try:
        sentences = _migrate(db, opening)
        try:
            # One byte of the header makes a file read-only for SQLite, which a write first shows.
            db.conn.execute("begin immediate")
            db.conn.execute(f"pragma user_version = {schema_version(db)}")
            db.rollback()
        except sqlite3.Error as error:
            raise explain("write to", path, error) from error
    except BaseException:
        db.close()
        raise
    return db, sentences


def _migrate(db: Database, opening: Opening) -> list[str]:
    version = schema_version(db)
    if version >= len(opening.migrations):
        return []
    try:
        steps = migrate(db, opening.migrations, opening.now_wall())
        # Into the file's header: the package reads the version there and refuses a downgrade.
        db.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        # A step that fails fails again: an error of this program, not of the file.
        raise StoreError(str(explain("migrate", opening.path, error)), code=MIGRATION) from error
    return [f"the database's schema was brought from version {version} to {version + len(steps)}"]


def _whole_copy(opening: Opening) -> Path | None:
    """The last verified copy, if it can be used."""
    copy = companion(opening.path, ".copy")
    try:
        return copy if copy.exists() and not find_damage(copy, opening.migrations) else None
    except StoreError:
        return None


def find_damage(path: Path, migrations: Sequence[Migration]) -> str:
    """Why this file cannot be used, "" when it can. Writes nothing; SchemaTooNew passes through."""
    try:
        with contextlib.closing(connect_to_read(path)) as db:
            return _find_damage(db, path, migrations)
    except sqlite3.Error as error:
        if code_of(error) == "damaged" or _a_new_one_would_open(path):
            return str(error)
        raise explain_opening(path, error) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return str(error)  # bytes of which the sqlite3 or the json module cannot make a value


def _find_damage(db: Database, path: Path, migrations: Sequence[Migration]) -> str:
    newest = len(migrations)
    application = db.execute("pragma application_id").fetchone()[0]
    version = schema_version(db)
    tables = set(db.table_names())
    if application != APPLICATION_ID:
        what = f"has the mark {application:#x}" if tables else "is empty"
        return f"the file {what}, it is not wa-agent's database"
    if missing := FIRST_TABLES - tables:
        return f"tables are missing: {', '.join(sorted(missing))}"
    # The header is one number of the file's first page; each step also left a row.
    steps = db.execute("select max(number) from migrations").fetchone()[0] or 0
    if steps != version:
        return f"its header names schema version {version}, its own list of steps {steps}"
    if version > newest:
        raise SchemaTooNew(
            f"cannot open {path}: its schema has version {version}, this program knows"
            f" {newest}; run the newer version"
        )
    if schema_of(db) != _schema_after(migrations[:version]):
        return "the description of its tables is not the one that this program wrote"
    # Not the quick one, which does not compare indexes with their tables: 0.12 s for 45 MB.
    lines = [str(row[0]) for row in db.execute("pragma integrity_check(5)").fetchall()]
    if lines != ["ok"]:
        return "; ".join(lines)[:300]
    list_keys(db)
    rows = db.execute(
        "select id, engine, enabled, settings, created_wall, record from instances"
        " left join sessions on instance = id"
    )
    lost = [
        row[0] for row in rows.fetchall() if decode_instance(row) is None or not _is_record(row[5])
    ]
    return f"the row of an instance cannot be read: {lost[0]!r:.80}" if lost else ""


def _is_record(text: str | None) -> bool:
    return text is not None and isinstance(json.loads(text), dict)


def _schema_after(migrations: Sequence[Migration]) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        db = Database(conn, recursive_triggers=False, execute_plugins=False)
        migrate(db, migrations, 0.0)
        return schema_of(db)


def _a_new_one_would_open(path: Path) -> bool:
    """Whether the trouble lies in this file's own bytes, which may say anything (even "read-only"):
    the file can be opened and written, and a database made beside it works."""
    trial = path.with_name(path.name + ".trial")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        trial.unlink(missing_ok=True)
        with contextlib.closing(connect(trial)) as db:
            db.execute("create table trial (x)")
            db.execute("insert into trial values (1)")
    except (OSError, StoreError, sqlite3.Error):
        return False
    finally:
        for left in (trial, *(companion(trial, suffix) for suffix in COMPANIONS)):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
    return True
