"""Looks into the database while no agent runs, without leaving a trace beside it.

SQLite makes files next to a database that it only reads; made by root, they would lock the
agent's own user out. So a copy is read.
"""

import shutil
import sqlite3
import tempfile
from pathlib import Path

from agent.errors import StoreError
from agent.store.connect import connect_to_read
from agent.store.trouble import explain


def check_unused(path: Path) -> str:
    """ "ok", or what is wrong. The caller holds the state directory's lock."""
    try:
        with tempfile.TemporaryDirectory(prefix="wa-agent-check-") as folder:
            copy = Path(folder) / path.name
            for part in (path, path.with_name(f"{path.name}-wal")):
                if part.exists():
                    shutil.copyfile(part, copy.with_name(part.name))
            return _check(copy)
    except sqlite3.Error as error:
        raise explain("check", path, error) from error
    except OSError as error:
        raise StoreError(f"cannot check {path}: {error.strerror or error}") from error


def _check(copy: Path) -> str:
    db = connect_to_read(copy)
    try:
        rows = [str(row[0]) for row in db.execute("pragma integrity_check(5)").fetchall()]
        db.execute("select count(*) from instances").fetchone()
    finally:
        db.close()
    return "ok" if rows == ["ok"] else "; ".join(rows)
