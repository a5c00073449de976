"""A new database in place of a damaged or lost one, which is kept: the last verified copy, with the
instances as their session folders have them."""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlite_utils import Database

from agent.core.model import Instance, SessionRecord
from agent.errors import StoreError
from agent.failpoint import failpoint
from agent.files import put_in_place, sync
from agent.store.connect import connect
from agent.store.errors import explain
from agent.store.instances import decode_record, encode_record, encode_settings, insert_instance
from agent.store.migrations import Migration, migrate

FolderSessions = Callable[[], Sequence[tuple[Instance, SessionRecord]]]
"""Reads the session folders, for a database that is lost."""

COMPANIONS = ("-wal", "-shm", "-journal")
_CURSORS_LEFT_OUT = 1_000_000
"""More than a day has: no cursor of the history that is lost stands for another entry."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a database is opened; one value, so that it can travel into the writer's thread."""

    path: Path
    folder_sessions: FolderSessions
    migrations: Sequence[Migration]
    now_wall: Callable[[], float]


def set_aside(path: Path, now_wall: float) -> Path:
    """Rename a damaged database with its companions; the main file first. A crash between leaves
    companions without a main file, which `build` moves away: SQLite would replay them into a new
    database.
    """
    kept = free_name(path, "damaged", now_wall)
    path.rename(kept)
    failpoint("mid_set_aside")
    move_companions(path, kept)
    sync(path.parent)
    return kept


def build(opening: Opening, copy: Path | None) -> list[str]:
    """Build a new database and rename it when it is complete; sentences on what is in it."""
    path = opening.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    move_companions(path, free_name(path, "damaged", opening.now_wall()))
    fresh = companion(path, ".new")
    for left in (fresh, *(companion(fresh, suffix) for suffix in COMPANIONS)):
        left.unlink(missing_ok=True)  # an unfinished one; all of it can be made again
    sessions = opening.folder_sessions()
    try:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if copy is not None:
            shutil.copyfile(copy, fresh)
        with contextlib.closing(connect(fresh)) as db:
            migrate(db, opening.migrations, opening.now_wall())
            db.execute("begin immediate")
            _take_from_folders(db, sessions)
            db.commit()
            failpoint("mid_rebuild")
            # All of it into the main file: the rename takes that alone.
            db.execute("pragma journal_mode = delete")
        put_in_place(fresh, path)
    except sqlite3.Error as error:
        raise explain("build", path, error) from error
    except OSError as error:
        raise StoreError(f"cannot build {path}: {error.strerror}") from error
    sentences = []
    if sessions:
        ids = [instance.id for instance, _ in sessions]
        sentences.append(f"{len(ids)} instances were restored from their folders: {named(ids)}")
    if copy is not None:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(copy.stat().st_mtime))
        sentences.append(
            f"API keys and history were taken from {copy.name} of {at}: what came later is lost;"
            " revoke again what was revoked since"
        )
    return sentences


def _take_from_folders(db: Database, sessions: Sequence[tuple[Instance, SessionRecord]]) -> None:
    """A copy may hold instances that were deleted since, and deletions that were ended since."""
    records = dict(db.execute("select instance, record from sessions").fetchall())
    db.execute("delete from instances")
    db.execute("delete from facts where name like 'deleting/%'")
    sql = "update sqlite_sequence set seq = seq + ? where name = 'journal'"
    db.execute(sql, [_CURSORS_LEFT_OUT])
    for instance, folder in sessions:
        known = encode_record(_with_folder(records.get(instance.id), folder))
        insert_instance(db, instance, encode_settings(instance), known)


def _with_folder(stored: str | None, folder: SessionRecord) -> SessionRecord:
    """The folder is nearer to the session: what it says of the pairing and of operators holds."""
    if not stored:
        return folder
    record = decode_record(stored)
    return replace(
        record,
        paired=folder.paired,
        account=folder.account,
        needs_passkey=folder.needs_passkey,
        override=folder.override,
        override_boot=folder.override_boot,
        generation=max(record.generation, folder.generation),
    )


def named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")


def companion(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def free_name(path: Path, word: str, now_wall: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_wall))
    name = f"{path.name}.{word}-{stamp}"
    number = 1
    while any(companion(path.with_name(name), end).exists() for end in ("", *COMPANIONS)):
        number += 1
        name = f"{path.name}.{word}-{stamp}.{number}"
    return path.with_name(name)


def move_companions(path: Path, kept: Path) -> None:
    for suffix in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            companion(path, suffix).rename(companion(kept, suffix))
