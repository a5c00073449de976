"""A copy of the database that was read back before it counts."""

import contextlib
import os
import sqlite3
from pathlib import Path

from sqlite_utils import Database

from agent.errors import StoreError
from agent.files import put_in_place
from agent.store.errors import explain


def integrity(db: Database) -> str:
    """ "ok", or what SQLite's full check says. Reads everything."""
    lines = [str(row[0]) for row in db.execute("pragma integrity_check(20)").fetchall()]
    return "ok" if lines == ["ok"] else "; ".join(lines)


def copy_verified(db: Database, target: Path) -> None:
    """Write a copy (VACUUM INTO), check it whole, and only then give it its name."""
    unfinished = target.with_name(target.name + ".tmp")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db.conn.execute("vacuum into ?", [str(unfinished)])
        with contextlib.closing(sqlite3.connect(unfinished)) as copy:
            result = integrity(Database(copy, recursive_triggers=False, execute_plugins=False))
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
