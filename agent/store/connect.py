"""Connections to the database: one writes, the others read; and a copy that was read back before it
counts."""

import contextlib
import errno
import os
import sqlite3
from functools import partial
from pathlib import Path

from sqlite_utils import Database

from agent.errors import StoreError, TryLater, cause_of
from agent.files import put_in_place, refuses_writes

_CODES = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CANTOPEN: "cannot_open",
    sqlite3.SQLITE_PERM: "permissions",
    sqlite3.SQLITE_AUTH: "permissions",
}

_OF_FILES = {errno.ENOSPC: "disk_full", errno.EROFS: "read_only", errno.EIO: "io"}
_CAUSES = {"disk_full": "the disk is full", "read_only": "it or its file system is read-only"}


def code_of(error: BaseException) -> str:
    if isinstance(error, StoreError):
        return error.code
    if isinstance(error, OSError):
        return _OF_FILES.get(error.errno or 0, StoreError.code)
    number = getattr(error, "sqlite_errorcode", None)
    # So looks a full disk when the shared index of the WAL cannot grow.
    if number in (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN):
        return "disk_full"
    return _CODES.get((number or 0) & 0xFF, "store")


def explain(verb: str, path: Path, error: BaseException) -> StoreError:
    code = code_of(error)
    if code in ("io", "cannot_open", "disk_full") and refuses_writes(path.parent):
        code = "read_only"
    cause, said = _CAUSES.get(code), cause_of(error)
    text = f"{cause} ({said})" if cause else said
    made = StoreError(f"cannot {verb} {path}: {text}", code=code)
    made.__cause__ = error
    if code == "busy":  # another program holds the database, which has room
        made.http, made.exit_status = TryLater.http, TryLater.exit_status
    return made


def opened(conn: sqlite3.Connection) -> Database:
    # KiB, not 2 MiB for each connection: repeated reads come from the kernel's cache.
    conn.execute("pragma cache_size = -256")
    # A row with damaged text is read all the same.
    conn.text_factory = partial(str, encoding="utf-8", errors="replace")
    return Database(conn, recursive_triggers=False, execute_plugins=False)


def connect(path: Path) -> Database:
    try:
        with contextlib.ExitStack() as failed:
            conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # Closed later, it would take away the log of the database that stands there then.
            failed.callback(conn.close)
            # Before any read: a read-only file or folder shows itself here.
            if (mode := conn.execute("pragma journal_mode = wal").fetchone()[0]) != "wal":
                raise StoreError(f"cannot open {path}: this file system allows no WAL ({mode})")
            conn.executescript("pragma synchronous = full; pragma foreign_keys = on")
            db = opened(conn)
            # One byte of the header makes a file read-only for SQLite, which a write first shows.
            conn.execute("begin immediate")
            version = conn.execute("pragma user_version").fetchone()[0]
            conn.execute(f"pragma user_version = {version}")
            conn.rollback()
            failed.pop_all()
    except sqlite3.Error as error:
        raise explain_opening(path, error) from error
    return db


def connect_to_read(path: Path) -> Database:
    """Open a second connection that cannot write: for looks, and for long checks and copies."""
    if path.exists() and not path.is_file():  # SQLite waits for ever for a FIFO's writer
        raise StoreError(f"cannot open {path}: it is no file; move it away", code="no_file")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return opened(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0))


def check(db: Database) -> str:
    """Return "ok", or what SQLite's full check says. It reads the whole file."""
    lines = [str(row[0]) for row in db.execute("pragma integrity_check(20)").fetchall()]
    return "ok" if lines == ["ok"] else "; ".join(lines)


def copy_verified(db: Database, target: Path) -> None:
    """Write a copy (VACUUM INTO), check it whole, and only then give it its name."""
    unfinished = target.with_name(target.name + ".tmp")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600, exist_ok=False)
        db.conn.execute("vacuum into ?", [str(unfinished)])
        with contextlib.closing(connect_to_read(unfinished)) as copy:
            if (found := check(copy)) != "ok":
                raise StoreError(f"cannot copy to {target}: the copy is not whole: {found}")
        put_in_place(unfinished, target)
    except OSError as error:
        raise explain("copy to", target, error) from error
    finally:
        # The journal is SQLite's own, which it leaves where the disk was full.
        for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            with contextlib.suppress(OSError):
                left.unlink()


def explain_opening(path: Path, error: Exception) -> StoreError:
    """Find the cause: SQLite says "unable to open database file" for many."""
    code = (made := explain("open", path, error)).code
    of_rights = code in ("cannot_open", "permissions", "read_only")
    for part in (path, path.parent) if of_rights and not refuses_writes(path.parent) else ():
        if not part.exists() or os.access(part, os.R_OK | os.W_OK, effective_ids=True):
            continue
        status = part.stat()
        owner = f"uid {status.st_uid} gid {status.st_gid} mode {status.st_mode & 0o7777:04o}"
        cause = f"{part} belongs to {owner}, this process is uid {os.geteuid()}"
        return StoreError(f"cannot open {path}: {cause}", code="permissions")
    with contextlib.suppress(OSError):
        room = os.statvfs(path.parent)
        # Some file systems count no inodes.
        if code in ("cannot_open", "disk_full") and room.f_files and not room.f_favail:
            cause = "its file system has no free inode; remove files there"
            return StoreError(f"cannot open {path}: {cause}", code="disk_full")
    return made
