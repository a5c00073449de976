"""SQLite files of messages: opened whole, or set aside and begun again.

Standard library only: each worker that keeps messages has this in memory.
"""

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from agent.errors import SchemaTooNew, StoreError

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BESIDE, _HEAD = ("-wal", "-shm", "-journal"), 32


class Form(NamedTuple):
    """A file's form: one of another form is not used."""

    application_id: int
    version: int
    tables: str
    check: str = "quick_check"
    """SQLite's pragma. `integrity_check` also compares indexes with tables, in five times the
    time."""


def is_damage(error: BaseException) -> bool:
    """True if the file is damaged. UnicodeDecodeError counts: SQLite quotes a damaged schema."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in _DAMAGE or isinstance(error, UnicodeDecodeError)


def open_file(path: Path, form: Form, *, mode: int = 0o600) -> tuple[sqlite3.Connection, str]:
    """A connection that writes, and why a damaged file was set aside; "" = none was.

    sqlite3.Error or OSError: the disk does not allow it now. SchemaTooNew: nothing was touched.
    """
    aside = ""
    refuse_link(path)
    # SQLite calls a file malformed also where one read of it failed: damage shows twice.
    if os.path.lexists(path) and all(fault := _find_fault(path, form) for _look in range(2)):
        aside = set_aside(path, f"damaged ({fault})")
    if not os.path.lexists(path):
        _make(path, form, mode)
    # While a connection that can only read is open, no later one of this process could write.
    if not os.access(path, os.W_OK):
        raise StoreError(f"cannot write {path}: it, or its disk, is read-only")
    db = _connect(path)
    try:
        if db.execute("pragma journal_mode = wal").fetchone()[0] != "wal":
            raise StoreError(f"cannot open {path}: this file system allows no WAL")
        db.executescript("pragma synchronous = full; pragma secure_delete = fast")
        db.execute("select name from sqlite_master").fetchone()  # its log is there from now on
    except BaseException:
        db.close()
        raise
    return db, aside


def refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StoreError(f"cannot open {path}: it is a link, which is not followed; put it there")


def rights_in(folder: Path) -> int:
    """Make the folder for the group of the session's folder; return the mode of a file in it."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(folder.parent.stat().st_mode & 0o770)
    return 0o600 | folder.stat().st_mode & 0o060


def open_to_read(path: Path) -> sqlite3.Connection:
    """For another process of the file's group while no worker runs. Nothing is made beside the
    file: a companion of this user might keep the worker out.

    A killed worker leaves its log. SQLite has emptied one whose index is gone; one that has no more
    than its head it reads for 10 s in vain."""
    if not stat.S_ISREG(path.lstat().st_mode) or path.parent.is_symlink():
        raise FileNotFoundError(2, "it is no file", str(path))
    log, index = (path.with_name(path.name + it) for it in _BESIDE[:2])
    how = "immutable=1"
    with suppress(FileNotFoundError):
        # SQLite waits for ever for a pipe in the index's place.
        if log.stat().st_size > _HEAD and index.is_file():
            how = "mode=ro&readonly_shm=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)


def set_aside(path: Path, what: str) -> str:
    """Rename a damaged file; return a sentence on that, in one line. `what`: its fault."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = path.with_name(f"{path.name}.damaged-{stamp}-{os.urandom(3).hex()}")
    path.rename(kept)
    for log in _BESIDE:
        with suppress(FileNotFoundError):
            path.with_name(path.name + log).rename(kept.with_name(kept.name + log))
    return f"{path.name} was {' '.join(what.split())}; it is kept as {kept.name}"


def _make(path: Path, form: Form, mode: int) -> None:
    """Make a file with its tables or none: a file without tables has lost what it held."""
    new = path.with_name(path.name + ".new")
    beside = (each.with_name(each.name + log) for each in (new, path) for log in _BESIDE)
    for left in (new, *beside):
        left.unlink(missing_ok=True)  # by a kill; no file replays the log of another one
    ids = f"pragma user_version = {form.version}; pragma application_id = {form.application_id}"
    with closing(_connect(new)) as db:
        db.executescript(f"begin immediate; {form.tables} {ids}; commit;")
    new.chmod(mode)
    new.rename(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    # Each session has a log of its own, and one that is written over is faster than one that grows.
    db.executescript("pragma cache_size = -256; pragma wal_autocheckpoint = 100")
    return db


def _find_fault(path: Path, form: Form) -> str:
    """Return the fault of the file; "" = it can be used."""
    if not stat.S_ISREG(path.lstat().st_mode) or not path.stat().st_size:
        return "it is no file, or an empty one"
    try:
        with closing(_connect(path)) as db, closing(sqlite3.connect(":memory:")) as made:
            if db.execute("pragma application_id").fetchone()[0] != form.application_id:
                return "it is another program's"
            version = db.execute("pragma user_version").fetchone()[0]
            if version > form.version:
                known = f"this program knows {form.version}; run the newer one, or move it away"
                raise SchemaTooNew(f"cannot open {path}: its schema has version {version}, {known}")
            found = db.execute(f"pragma {form.check}(3)").fetchall()
            if found != [("ok",)]:
                return "; ".join(str(row[0]) for row in found)[:300]
            made.executescript(form.tables)
            # For SQLite's check a column under another name is none that is damaged.
            tables = "select hex(name), hex(sql) from sqlite_master order by name"
            same = db.execute(tables).fetchall() == made.execute(tables).fetchall()
            return "" if same else "its tables are not as this program makes them"
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if is_damage(error):
            return str(error)
        raise
