"""Connections to the database: one writes, the others read; and a copy that was read back before it
counts."""

import contextlib
import os
import sqlite3
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from agent.errors import StoreError
from agent.files import put_in_place
from agent.store.errors import code_of, explain
from agent.store.migrations import schema_version

CACHE = "cache_size = -256"
"""KiB. The default is 2 MiB for each connection; repeated reads come from the kernel's cache."""


def _opened(conn: sqlite3.Connection) -> Database:
    # A row with damaged text is read all the same.
    conn.text_factory = partial(str, encoding="utf-8", errors="replace")
    return Database(conn, recursive_triggers=False, execute_plugins=False)


def connect(path: Path) -> Database:
    try:
        with contextlib.ExitStack() as failed:
            conn = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            # Closed later, it would take away the log of the database that stands there then.
            failed.callback(conn.close)
            db = _opened(conn)
            # Before any read: a read-only file or folder shows itself here.
            mode = conn.execute("pragma journal_mode = wal").fetchone()[0]
            if mode != "wal":
                raise StoreError(f"cannot open {path}: this file system allows no WAL ({mode})")
            for pragma in ("synchronous = full", "foreign_keys = on", "busy_timeout = 5000", CACHE):
                conn.execute(f"pragma {pragma}")
            # One byte of the header makes a file read-only for SQLite, which a write first shows.
            conn.execute("begin immediate")
            conn.execute(f"pragma user_version = {schema_version(db)}")
            conn.rollback()
            failed.pop_all()
    except sqlite3.Error as error:
        raise explain_opening(path, error) from error
    return db


def connect_to_read(path: Path) -> Database:
    """A second connection that cannot write: for looking, and for long checks and copies."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)
    conn.execute(f"pragma {CACHE}")
    return _opened(conn)


def integrity(db: Database) -> str:
    """ "ok", or what SQLite's full check says. Reads everything."""
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
            result = integrity(copy)
        if result != "ok":
            raise StoreError(f"cannot copy to {target}: the copy is not whole: {result}")
        put_in_place(unfinished, target)
    except sqlite3.Error as error:
        raise explain("copy to", target, error) from error
    except OSError as error:
        raise StoreError(f"cannot copy to {target}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
        # SQLite's own, which it leaves where the disk was full.
        unfinished.with_name(f"{unfinished.name}-journal").unlink(missing_ok=True)


def explain_opening(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite says "unable to open database file" for many causes: find the one."""
    code = code_of(error)
    for part in (path, path.parent):
        wanted = os.R_OK | os.W_OK | (os.X_OK if part.is_dir() else 0)
        refused = part.exists() and not os.access(part, wanted, effective_ids=True)
        if code not in ("cannot_open", "permissions", "read_only") or not refused:
            continue
        if os.statvfs(part).f_flag & os.ST_RDONLY:
            return StoreError(f"cannot open {path}: it is on a read-only disk", code="read_only")
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
    return explain("open", path, error)
