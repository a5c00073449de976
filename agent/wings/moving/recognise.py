"""What a source is: a folder, a file or an address, recognised by what it holds."""

from dataclasses import dataclass
from pathlib import Path

from agent.cli.copies.transfer import open_source
from agent.errors import InvalidRequest
from agent.vault.archives.found import FoundSession
from agent.wings.moving.databases import ElsewhereKeys, find_evolution, find_whaticket
from agent.wings.moving.dumps import DumpTables, of_mysql, of_postgres
from agent.wings.moving.folders import find_in_folder, read_folder
from agent.wings.moving.mysql import MysqlTables
from agent.wings.moving.program_tables import PostgresTables, SqliteTables, Tables
from agent.wings.moving.redis import find_in_redis, hash_keys
from agent.wings.moving.whatsmeow import DEVICE, find_whatsmeow

REDIS = ("redis://", "rediss://", "unix://")
POSTGRES = ("postgresql://", "postgres://")
MYSQL = ("mysql://", "mariadb://")
_SQLITE = b"SQLite format 3\0"
_DUMPS = {
    b"-- PostgreSQL database dump": of_postgres,
    b"-- MySQL dump": of_mysql,
    b"-- MariaDB dump": of_mysql,
}
KINDS = (
    "a folder of Baileys keys (creds.json), Evolution API 1.8's instances/ or WAHA's NOWEB folder,"
    " an SQLite file or a PostgreSQL database of whatsmeow, a database of Evolution API 2 or"
    " whaticket (postgresql://…, mysql://… or what pg_dump or mysqldump wrote), a Redis of"
    " whaticket (redis://…)"
)


@dataclass(frozen=True, slots=True)
class Hints:
    """What a source cannot tell by itself."""

    keys: str = ""
    """Where the keys of a database's sessions lie: a folder or a redis:// address."""
    pattern: str = "sessions:{id}:*"
    """How whaticket names its keys in Redis."""
    stopped: bool = False
    """A person says that the sessions' program is stopped, whatever seems to use them."""


def is_address(source: str) -> bool:
    return "://" in source


def find_sessions(source: str, hints: Hints) -> list[FoundSession]:
    """Every session of the source; InvalidRequest where nothing there is a session."""
    sessions = _look_in(source, hints)
    if not sessions:
        raise InvalidRequest(
            f"cannot import {shown(source)}: it holds no session; known are {KINDS}",
            field="source",
            code="no_session",
        )
    if not hints.stopped:
        sessions = [session.refused_while_used for session in sessions]
    return sorted(sessions, key=lambda session: (session.program, session.name))


def _look_in(source: str, hints: Hints) -> list[FoundSession]:
    if source.startswith(REDIS):
        return find_in_redis(source, hints.pattern)
    if source.startswith(POSTGRES):
        return _in_tables(PostgresTables(source), hints)
    if source.startswith(MYSQL):
        return _in_tables(MysqlTables(source), hints)
    if is_address(source):
        scheme = source.partition(":")[0]
        raise InvalidRequest(
            f"cannot import from {scheme}://: known are {KINDS}", field="source", code="unknown"
        )
    path = Path(source)
    if path.is_dir():
        return find_in_folder(path)
    head = head_of(path)
    if head.startswith(_SQLITE):
        return _in_tables(SqliteTables(path), hints)
    for mark, rows in _DUMPS.items():
        if mark in head:
            return _in_tables(DumpTables(path, rows), hints)
    return []


def head_of(path: Path) -> bytes:
    with open_source(path, "source") as file:
        return file.read(4096)


def _in_tables(tables: Tables, hints: Hints) -> list[FoundSession]:
    names = tables.names()
    sessions = []
    if DEVICE in names:
        sessions += find_whatsmeow(tables)
    if {"Session", "Instance"} <= names:
        sessions += find_evolution(tables, _elsewhere(hints.keys))
    if "Whatsapps" in names:
        sessions += find_whaticket(tables)
    return sessions


def _elsewhere(place: str) -> ElsewhereKeys | None:
    if not place:
        return None
    if place.startswith(REDIS):
        return lambda id: hash_keys(place, id)
    root = Path(place)
    if not root.is_dir():
        raise InvalidRequest(
            f"cannot read {place}: no such folder", field="keys", code="unreadable"
        )

    def read(id: str) -> dict[str, bytes]:
        folder = root / id
        # An id is a name of the server's database: never a way out of the folder.
        if "/" in id or id in ("", ".", "..") or not folder.is_dir():
            return {}
        return dict(read_folder(folder))

    return read


def shown(source: str) -> str:
    """A source without its password."""
    scheme, separator, rest = source.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if separator else source
