"""From a path to a connection that can be trusted: examine, set aside, rebuild, migrate."""

import contextlib
import sqlite3
from pathlib import Path

from sqlite_utils import Database

from agent.errors import SchemaTooNew, StoreError
from agent.failpoint import failpoint
from agent.store import reserve as ballast
from agent.store.connect import connect, connect_to_read, explain_opening
from agent.store.copy import copy_verified
from agent.store.errors import code_of, explain
from agent.store.migrations import APPLICATION_ID, migrate, schema_version, tables_of
from agent.store.rebuild import Opening, build, clear_marks, free_name, set_aside, suspect_mark


def open_checked(opening: Opening) -> tuple[Database, list[str]]:
    """A connection to a whole database of the newest schema, and what had to be repaired."""
    try:
        try:
            db, told = _open(opening)
        except StoreError as error:
            if error.code != "disk_full" or not ballast.free(opening.path):
                raise
            db, told = _open(opening)
            told.append("the disk is full: the database was opened with its reserve")
        ballast.lay_in(opening.path)
        return db, told
    except OSError as error:
        raise StoreError(f"cannot open {opening.path}: {error}") from error


def _open(opening: Opening) -> tuple[Database, list[str]]:
    path = opening.path
    told: list[str] = []
    if path.exists() and (damage := find_damage(path, len(opening.migrations))):
        kept = set_aside(path, opening.now_wall())
        told.append(f"the database was damaged ({damage}); it is kept as {kept.name}")
    if not path.exists():
        told += build(opening)
    clear_marks(path)
    db = connect(path)
    try:
        version = schema_version(db)
        if version < len(opening.migrations):
            copy = copy_before_migration(path, version, opening.now_wall())
            steps = migrate(db, opening.migrations, opening.now_wall())
            told.append(
                f"the database's schema was brought from version {version} to"
                f" {version + len(steps)}; a copy from before is {copy.name}"
            )
    except sqlite3.Error as error:
        db.close()
        raise explain("migrate", path, error) from error
    except BaseException:
        db.close()
        raise
    return db, told


def find_damage(path: Path, newest: int) -> str:
    """Why this file cannot be used, "" when it can. Writes nothing; SchemaTooNew passes through."""
    try:
        with contextlib.closing(connect_to_read(path)) as db:
            application = db.execute("pragma application_id").fetchone()[0]
            version = schema_version(db)
            tables = set(db.table_names())
            if application != APPLICATION_ID:
                what = f"has the mark {application:#x}" if tables else "is empty"
                return f"the file {what}, it is not wa-agent's database"
            if version > newest:
                raise SchemaTooNew(
                    f"cannot open {path}: its schema has version {version}, this program knows"
                    f" {newest}; run the newer version, or restore the copy that it made before"
                    f" it migrated ({path.name}.before-*)"
                )
            if missing := tables_of(version) - tables:
                return f"tables are missing: {', '.join(sorted(missing))}"
            # The quick one does not compare indexes with their tables.
            check = "integrity_check" if suspect_mark(path).exists() else "quick_check"
            lines = [row[0] for row in db.execute(f"pragma {check}(5)").fetchall()]
            return "" if lines == ["ok"] else "; ".join(lines)[:300]
    except sqlite3.Error as error:
        if code_of(error) == "damaged":
            return str(error)
        raise explain_opening(path, error) from error


def copy_before_migration(path: Path, version: int, now_wall: float) -> Path:
    copy = free_name(path, f"before-{version + 1}", now_wall)
    failpoint("before_migration_copy")
    with contextlib.closing(connect_to_read(path)) as db:
        copy_verified(db, copy)
    failpoint("after_migration_copy")
    return copy
