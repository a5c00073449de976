"""From a path to a connection that can be trusted: examine, set aside, rebuild, migrate.

Nothing is ever deleted or emptied here. A damaged file is kept under another name.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from agent.core.model import Instance, SessionRecord
from agent.errors import SchemaTooNew, StoreError
from agent.failpoint import failpoint
from agent.store.copy import copy_verified, sync_folder
from agent.store.instances import encode_record, encode_settings, insert_instance
from agent.store.migrations import APPLICATION_ID, TABLES, Migration, migrate, schema_version
from agent.store.trouble import code_of, explain

Found = Callable[[], Sequence[tuple[Instance, SessionRecord]]]
"""What the session folders say, for a database that is lost."""

COMPANIONS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a database is opened; one value, so that it can travel into the writer's thread."""

    path: Path
    found: Found
    migrations: Sequence[Migration]
    now_wall: Callable[[], float]


def open_checked(opening: Opening) -> tuple[Database, list[str]]:
    """A connection to a whole database of the newest schema, and what had to be repaired."""
    path = opening.path
    told: list[str] = []
    if path.exists() and (damage := find_damage(path, len(opening.migrations))):
        kept = set_aside(path, opening.now_wall())
        told.append(f"the database was damaged ({damage}); it is kept as {kept.name}")
    if not path.exists():
        told += build(opening)
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


def connect(path: Path) -> Database:
    try:
        conn = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        db = Database(conn, recursive_triggers=False, execute_plugins=False)
        # Before anything reads: this is where a read-only file or folder shows itself.
        mode = conn.execute("pragma journal_mode = wal").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"cannot open {path}: this file system allows no WAL ({mode})")
        for pragma in ("synchronous = full", "foreign_keys = on", "busy_timeout = 5000"):
            conn.execute(f"pragma {pragma}")
    except sqlite3.Error as error:
        raise explain_opening(path, error) from error
    return db


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
            if missing := TABLES - tables:
                return f"tables are missing: {', '.join(sorted(missing))}"
            lines = [row[0] for row in db.execute("pragma quick_check(5)").fetchall()]
            return "" if lines == ["ok"] else "; ".join(lines)[:300]
    except sqlite3.Error as error:
        if code_of(error) == "damaged":
            return str(error)
        raise explain_opening(path, error) from error


def connect_to_read(path: Path) -> Database:
    """A second connection that cannot write: for looking, and for long checks and copies."""
    conn = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, timeout=5.0
    )
    return Database(conn, recursive_triggers=False, execute_plugins=False)


def explain_opening(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite says "unable to open database file" for everything; look at what it means."""
    if code_of(error) in ("cannot_open", "permissions", "read_only"):
        for part in (path, path.parent):
            wanted = os.R_OK | os.W_OK | (os.X_OK if part.is_dir() else 0)
            if part.exists() and not os.access(part, wanted, effective_ids=True):
                read_only = bool(os.statvfs(part).f_flag & os.ST_RDONLY)
                status = part.stat()
                cause = (
                    "its file system is read-only"
                    if read_only
                    else f"{part} belongs to uid {status.st_uid} gid {status.st_gid}"
                    f" mode {status.st_mode & 0o7777:04o}, this process is uid {os.geteuid()}"
                )
                code = "read_only" if read_only else "permissions"
                return StoreError(f"cannot open {path}: {cause}", code=code)
    return explain("open", path, error)


def set_aside(path: Path, now_wall: float) -> Path:
    """Rename a damaged database with its companions; the main file first.

    A crash between leaves companions without a main file, which `build` moves away: they must
    never meet a new database, for SQLite would replay them into it.
    """
    kept = _free_name(path, "damaged", now_wall)
    path.rename(kept)
    failpoint("mid_set_aside")
    _move_companions(path, kept)
    sync_folder(path.parent)
    return kept


def build(opening: Opening) -> list[str]:
    """A new database, under its name only when it is complete, with what the folders say."""
    path = opening.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _move_companions(path, _free_name(path, "damaged", opening.now_wall()))
    fresh = path.with_name(path.name + ".new")
    for left in (fresh, *(_companion(fresh, suffix) for suffix in COMPANIONS)):
        left.unlink(missing_ok=True)  # an unfinished one of ours; everything in it is in `found`
    sessions = list(opening.found())
    try:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(connect(fresh)) as db:
            migrate(db, opening.migrations, opening.now_wall())
            db.execute("begin immediate")
            for instance, record in sessions:
                insert_instance(db, instance, encode_settings(instance), encode_record(record))
            db.commit()
            failpoint("mid_rebuild")
            # Into the main file with it all: the rename takes that alone.
            db.execute("pragma journal_mode = delete")
        fresh.rename(path)
        sync_folder(path.parent)
    except sqlite3.Error as error:
        raise explain("build", path, error) from error
    except OSError as error:
        raise StoreError(f"cannot build {path}: {error.strerror}") from error
    if not sessions:
        return []
    names = ", ".join(instance.id for instance, _ in sessions[:20])
    more = f" and {len(sessions) - 20} more" if len(sessions) > 20 else ""
    return [f"{len(sessions)} instances were restored from their folders: {names}{more}"]


def copy_before_migration(path: Path, version: int, now_wall: float) -> Path:
    copy = _free_name(path, f"before-{version + 1}", now_wall)
    failpoint("before_migration_copy")
    with contextlib.closing(connect_to_read(path)) as db:
        copy_verified(db, copy)
    failpoint("after_migration_copy")
    return copy


def _move_companions(path: Path, kept: Path) -> None:
    for suffix in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            _companion(path, suffix).rename(_companion(kept, suffix))


def _companion(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _free_name(path: Path, word: str, now_wall: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_wall))
    name = f"{path.name}.{word}-{stamp}"
    number = 1
    while any(_companion(path.with_name(name), end).exists() for end in ("", *COMPANIONS)):
        number += 1
        name = f"{path.name}.{word}-{stamp}.{number}"
    return path.with_name(name)
