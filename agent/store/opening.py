"""From a path to a database that can be trusted. A damaged or lost one is kept, and the last
verified copy takes its place, with the instances as their session folders have them."""

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sqlite_utils import Database

from agent.core.model import Instance, SessionRecord
from agent.errors import SchemaTooNew, StoreError
from agent.failpoint import failpoint
from agent.files import put_in_place, sync
from agent.store import instances
from agent.store.connect import connect, connect_to_read, explain_opening, integrity
from agent.store.errors import code_of, explain
from agent.store.keys import list_keys
from agent.store.migrations import Migration, migrate, schema_after, schema_of, schema_version

FolderSessions = Callable[[], Sequence[tuple[Instance, SessionRecord]]]
"""Reads the session folders, for a database that is lost."""

MIGRATION = "migration"
UNUSABLE = ("disk_full", "busy", MIGRATION)
"""Codes of failures that another database in its place would not cure."""
_NO_VALUES = (ValueError, TypeError, OverflowError, RecursionError)
"""What the sqlite3 and json modules raise for bytes of which they cannot make a value."""
COMPANIONS = ("-wal", "-shm", "-journal")
_CURSORS_LEFT_OUT = 1_000_000
"""More than a day has: no cursor of the history that is lost stands for another entry."""


def open_checked(
    path: Path,
    folder_sessions: FolderSessions,
    sentences: list[str],
    migrations: Sequence[Migration],
    now_wall: float,
) -> Database:
    """A connection to a whole database of the newest schema. `sentences` gets what had to be
    repaired."""
    try:
        if path.exists():
            try:
                check_whole(path, migrations)
                return _use(path, migrations, sentences)
            except (sqlite3.Error, StoreError, *_NO_VALUES) as error:
                code = "damaged" if isinstance(error, _NO_VALUES) else code_of(error)
                if code != "damaged" and (code in UNUSABLE or not _a_new_one_would_open(path)):
                    raise
                kept = _set_aside(path, now_wall)
                damage = f"the database was damaged ({error}); it is kept as {kept.name}"
                sentences.append(damage)
        sentences += _build(path, folder_sessions(), migrations, now_wall)
        return _use(path, migrations, sentences)
    except sqlite3.Error as error:
        raise explain_opening(path, error) from error
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error}") from error


def _use(path: Path, migrations: Sequence[Migration], sentences: list[str]) -> Database:
    """Connect and migrate."""
    db = connect(path)
    try:
        version = schema_version(db)
        if steps := migrate(db, migrations):
            # Into the file's header: the package reads the version there and refuses a downgrade.
            db.execute("pragma wal_checkpoint(truncate)")
            to = f"from version {version} to {version + steps}"
            sentences.append(f"the database's schema was brought {to}")
        return db
    except sqlite3.Error as error:
        db.close()
        # A step that fails fails again: an error of this program, not of the file.
        raise StoreError(str(explain("migrate", path, error)), code=MIGRATION) from error


def check_whole(path: Path, migrations: Sequence[Migration]) -> None:
    """Raises what is wrong with this file. Writes nothing."""
    with contextlib.closing(connect_to_read(path)) as db:
        # The header is one number of the file's first page; each step also left a row.
        version, newest = schema_version(db), len(migrations)
        steps = db.execute("select max(number) from migrations").fetchone()[0] or 0
        if steps == version > newest:
            raise SchemaTooNew(
                f"cannot open {path}: its schema has version {version}, this program knows"
                f" {newest}; run the newer version"
            )
        if steps != version or schema_of(db) != schema_after(migrations[:version]):
            raise StoreError("its schema is not as this program wrote it", code="damaged")
        # Not the quick one, which does not compare indexes with their tables: 0.12 s for 45 MB.
        if (found := integrity(db)) != "ok":
            raise StoreError(found[:300], code="damaged")
        list_keys(db)
        for id, *rest in db.execute(instances.SELECT).fetchall():
            whole = isinstance(json.loads(rest[-1] or "null"), dict)
            if not whole or instances.decode_instance([id, *rest]) is None:
                unread = f"the row of an instance cannot be read: {id!r:.80}"
                raise StoreError(unread, code="damaged")


def _a_new_one_would_open(path: Path) -> bool:
    """True if the trouble lies in this file's own bytes, which may say anything (even "read-only"):
    the file can be opened and written, and a database made beside it works."""
    trial = _beside(path, ".trial")
    try:
        with path.open("r+b"), contextlib.closing(connect(trial)) as db:
            db.execute("create table if not exists trial (x)")
    except (OSError, StoreError, sqlite3.Error):
        return False
    finally:
        with contextlib.suppress(OSError):
            _remove(trial)
    return True


def _set_aside(path: Path, now_wall: float) -> Path:
    """Rename a damaged database with its companions; the main file first. A crash between leaves
    companions without a main file, which `_build` moves away: SQLite would replay them into a new
    database."""
    kept = _free_name(path, now_wall)
    path.rename(kept)
    failpoint("mid_set_aside")
    _move_companions(path, kept)
    sync(path.parent)
    return kept


def _build(
    path: Path,
    sessions: Sequence[tuple[Instance, SessionRecord]],
    migrations: Sequence[Migration],
    now_wall: float,
) -> list[str]:
    """Build a new database and rename it when it is complete; sentences on what is in it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _move_companions(path, _free_name(path, now_wall))
    copy, fresh, sentences = _beside(path, ".copy"), _beside(path, ".new"), []
    _remove(fresh)  # an unfinished one; all of it can be made again
    fresh.touch(mode=0o600)
    if sessions:
        ids = [instance.id for instance, _ in sessions]
        more = f" and {len(ids) - 20} more" if len(ids) > 20 else ""
        restored = f"{len(ids)} instances were restored from their folders"
        sentences.append(f"{restored}: {', '.join(ids[:20])}{more}")
    with contextlib.suppress(sqlite3.Error, StoreError, SchemaTooNew, *_NO_VALUES):
        check_whole(copy, migrations)
        shutil.copyfile(copy, fresh)
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(copy.stat().st_mtime))
        sentences.append(
            f"API keys and history were taken from {copy.name} of {at}: what came later is lost;"
            " revoke again what was revoked since"
        )
    with contextlib.closing(connect(fresh)) as db:
        migrate(db, migrations)
        with db.atomic():
            _take_from_folders(db, sessions)
        failpoint("mid_rebuild")
        # All of it into the main file: the rename takes that alone.
        db.execute("pragma journal_mode = delete")
    put_in_place(fresh, path)
    return sentences


_OF_FOLDERS = ("paired", "account", "needs_passkey", "override", "override_boot")
"""What a folder says of the pairing and of operators: it is nearer to the session."""


def _take_from_folders(db: Database, sessions: Sequence[tuple[Instance, SessionRecord]]) -> None:
    """A copy may hold instances that were deleted since, and deletions that were ended since."""
    records = dict(db.execute("select instance, record from sessions").fetchall())
    db.execute("delete from instances")
    db.execute("delete from facts where name like 'deleting/%'")
    sql = "update sqlite_sequence set seq = seq + ? where name = 'journal'"
    db.execute(sql, [_CURSORS_LEFT_OUT])
    for instance, folder in sessions:
        record = folder
        if instance.id in records:
            stored = instances.decode_record(records[instance.id])
            generation = max(stored.generation, folder.generation)
            own = {name: getattr(folder, name) for name in _OF_FOLDERS}
            record = replace(stored, generation=generation, **own)
        settings = json.dumps(dict(instance.settings))
        instances.insert_instance(db, instance, settings, instances.encode_record(record))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    for suffix in ("", *COMPANIONS):
        _beside(path, suffix).unlink(missing_ok=True)


def _free_name(path: Path, now_wall: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_wall))
    kept = _beside(path, f".damaged-{stamp}")
    taken = len(list(path.parent.glob(f"{kept.name}*")))
    return _beside(kept, f".{taken}") if taken else kept


def _move_companions(path: Path, kept: Path) -> None:
    for suffix in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(kept, suffix))
