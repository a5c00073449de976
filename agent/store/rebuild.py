"""A new database in place of a damaged or lost one, which is kept. Instances come from the session
folders; keys, history and records from what can still be read."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlite_utils import Database

from agent.core.model import Instance, SessionRecord
from agent.errors import StoreError
from agent.failpoint import failpoint
from agent.files import put_in_place, sync, write_whole
from agent.store.connect import connect
from agent.store.errors import explain
from agent.store.instances import decode_record, encode_record, encode_settings, insert_instance
from agent.store.migrations import Migration, migrate
from agent.store.salvage import Salvage, insert_salvage, salvage

FolderSessions = Callable[[], Sequence[tuple[Instance, SessionRecord]]]
"""Reads the session folders, for a database that is lost."""

COMPANIONS = ("-wal", "-shm", "-journal")


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
    # Tells a later start, should this one be killed, from where to salvage.
    write_whole(_rebuilding(path), kept.name.encode())
    path.rename(kept)
    failpoint("mid_set_aside")
    move_companions(path, kept)
    sync(path.parent)
    return kept


def build(opening: Opening) -> list[str]:
    """Build a new database and rename it when it is complete; sentences on what is in it."""
    path = opening.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = _kept_name(path)
    move_companions(path, kept or free_name(path, "damaged", opening.now_wall()))
    fresh = companion(path, ".new")
    for left in (fresh, *(companion(fresh, suffix) for suffix in COMPANIONS)):
        left.unlink(missing_ok=True)  # an unfinished one; all of it can be made again
    sessions = list(opening.folder_sessions())
    saved = salvage(kept, nightly_copy(path))
    try:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(connect(fresh)) as db:
            migrate(db, opening.migrations, opening.now_wall())
            sentences = _fill(db, sessions, saved)
            failpoint("mid_rebuild")
            # All of it into the main file: the rename takes that alone.
            db.execute("pragma journal_mode = delete")
        put_in_place(fresh, path)
    except sqlite3.Error as error:
        raise explain("build", path, error) from error
    except OSError as error:
        raise StoreError(f"cannot build {path}: {error.strerror}") from error
    return sentences


def _fill(
    db: Database, sessions: Sequence[tuple[Instance, SessionRecord]], saved: Salvage
) -> list[str]:
    db.execute("begin immediate")
    in_folders = {instance.id for instance, _ in sessions}
    for instance, record in sessions:
        known = with_folder(saved.records.get(instance.id), record)
        insert_instance(db, instance, encode_settings(instance), encode_record(known))
    # A folder may be away for the moment: what the damaged file says of its instance is kept.
    others = [row for row in saved.instances if row.id not in in_folders]
    for instance in others:
        known = decode_record(saved.records.get(instance.id))
        insert_instance(db, instance, encode_settings(instance), encode_record(known))
    sentences = insert_salvage(db, saved)
    db.commit()
    for made, source in ((others, "the damaged file"), (in_folders, "their folders")):
        if made:
            ids = sorted(row if isinstance(row, str) else row.id for row in made)
            sentences.insert(0, f"{len(ids)} instances were restored from {source}: {named(ids)}")
    return sentences


def with_folder(stored: str | None, folder: SessionRecord) -> SessionRecord:
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


def nightly_copy(path: Path) -> Path:
    """Where the verified copy is kept that a lost database is salvaged from."""
    return companion(path, ".copy")


def clear_mark(path: Path) -> None:
    """The database is whole: what earlier starts noted about it is over."""
    _rebuilding(path).unlink(missing_ok=True)


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


def _rebuilding(path: Path) -> Path:
    return companion(path, ".rebuilding")


def _kept_name(path: Path) -> Path | None:
    """The damaged database that the rebuild under way began with."""
    try:
        name = _rebuilding(path).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    kept = path.with_name(Path(name).name) if name else None
    return kept if kept and kept.exists() else None


def move_companions(path: Path, kept: Path) -> None:
    for suffix in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            companion(path, suffix).rename(companion(kept, suffix))
