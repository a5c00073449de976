"""Looks into the database while no agent runs, without leaving files beside it: SQLite makes files
next to a database that it only reads; made by root, they would lock the agent's own user out. So a
copy is read.
"""

import errno
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from agent.core.model import JournalEntry
from agent.errors import StoreError
from agent.files import open_plain
from agent.folder_lock import folder_locked
from agent.store.connect import connect_to_read
from agent.store.errors import explain
from agent.store.journal import select_entries

T = TypeVar("T")
_PIECE = 1 << 20


@contextmanager
def lock_of(state: Path) -> Iterator[bool]:
    """True while this process has the lock that an agent would have."""
    with ExitStack() as held:
        try:
            held.enter_context(folder_locked(state))
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(state / "lock", flags)
            held.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:
            free = not os.path.lexists(state / "lock")
        else:
            free = True
        yield free


def check_unused(path: Path) -> str:
    """ "ok", or what is wrong. The caller has the state directory's lock."""
    return _on_copy(path, "check", _check)


def last_entries(path: Path, limit: int) -> list[JournalEntry]:
    """Its history, the newest first. The caller has the lock."""
    return _on_copy(path, "read", lambda copy: _read_entries(copy, limit))


def _on_copy(path: Path, verb: str, look: Callable[[Path], T]) -> T:
    try:
        with tempfile.TemporaryDirectory(prefix="wa-agent-check-") as folder:
            copy = Path(folder) / path.name
            for part in (path, path.with_name(f"{path.name}-wal")):
                if os.path.lexists(part):
                    _copy_plain(part, copy.with_name(part.name))
            return look(copy)
    except sqlite3.Error as error:
        raise explain(verb, path, error) from error
    except OSError as error:
        raise StoreError(f"cannot {verb} {path}: {error.strerror or error}") from error


def _copy_plain(source: Path, target: Path) -> None:
    """Root may be who reads, and another user who wrote: to the size of now, where it has room."""
    with open_plain(source) as file, target.open("wb") as copy:
        size, room = os.fstat(file.fileno()).st_size, shutil.disk_usage(target.parent).free
        if size > room:
            raise OSError(
                errno.ENOSPC, f"it has {size >> 20} MiB, {target.parent} has room for {room >> 20}"
            )
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            size -= copy.write(piece)


def _check(copy: Path) -> str:
    db = connect_to_read(copy)
    try:
        rows = [str(row[0]) for row in db.execute("pragma integrity_check(5)").fetchall()]
        db.execute("select count(*) from instances").fetchone()
    finally:
        db.close()
    return "ok" if rows == ["ok"] else "; ".join(rows)


def _read_entries(copy: Path, limit: int) -> list[JournalEntry]:
    db = connect_to_read(copy)
    try:
        return select_entries(db, limit=limit)
    finally:
        db.close()
