"""From sqlite3's errors to the agent's, with a code that callers act on."""

import sqlite3
from pathlib import Path

from agent.disk import refuses_writes
from agent.errors import StoreError

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

TROUBLES = (*dict.fromkeys(_CODES.values()), "store")
"""All codes that an error of the database may have."""

_CAUSES = {
    "disk_full": "the disk is full",
    "read_only": "the file or its file system is read-only",
}

_NO_ROOM = (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMOPEN)
"""What a full disk looks like when the shared index of the WAL cannot grow."""


class StoreBusy(StoreError):
    """Another program holds the database; it has room."""

    http = 503
    exit_status = 75


def code_of(error: BaseException) -> str:
    if isinstance(error, StoreError):
        return error.code
    number = getattr(error, "sqlite_errorcode", None)
    if number in _NO_ROOM:
        return "disk_full"
    return _CODES.get((number or 0) & 0xFF, "store")


def explain(verb: str, path: Path, error: BaseException) -> StoreError:
    code = code_of(error)
    if code == "io" and refuses_writes(path.parent):
        code = "read_only"
    cause = _CAUSES.get(code)
    text = f"{cause} ({error})" if cause else str(error) or type(error).__name__
    made = StoreBusy if code == "busy" else StoreError
    return made(f"cannot {verb} {path}: {text}", code=code)
