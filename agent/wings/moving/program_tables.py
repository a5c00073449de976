"""Tables of another program: of a PostgreSQL server or of an SQLite file. Each is read through the
program that belongs to it and never written."""

import csv
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from agent.engines.baileys.files import SIZE_LIMIT
from agent.errors import InvalidRequest, Refused, WaError
from agent.vault.archives.scratch import scratch
from agent.wings.moving.users import user_of_file

Row = Mapping[str, str | bytes | int | None]
_TIMEOUT = 120.0
_ENDING = 1.0


def is_wanted(table: str) -> bool:
    """Whether sessions lie in it; a server's messages are not read."""
    sessions = ("Session", "Instance", "Whatsapps", "BaileysKeys")
    return table in sessions or table.startswith("whatsmeow_")


def lasting_user(look: Callable[[], str]) -> str:
    """Who uses a server; a client that has just ended is still listed for a moment."""
    deadline = time.monotonic() + _ENDING
    while (user := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return user


class Tables(Protocol):
    user: str
    """The program that uses the database now; "" when none is seen."""
    written: float | None

    def names(self) -> frozenset[str]: ...

    def rows(self, table: str) -> list[Row]: ...


class SqliteTables:
    """Read in its place, as a file that nothing changes. With a journal beside it a copy is read:
    to open the file itself would write that back."""

    def __init__(self, path: Path) -> None:
        self.user = user_of_file(path)
        self.written: float | None = path.stat().st_mtime
        self._names: dict[str, list[Row]] = {}
        journals = [
            beside
            for suffix in ("-wal", "-journal")
            if _size(beside := path.with_name(path.name + suffix))
        ]
        try:
            if not journals:
                self._read(f"{path.absolute().as_uri()}?immutable=1")
                return
            size = sum(map(_size, (path, *journals)))
            if size > SIZE_LIMIT:
                raise Refused(
                    f"cannot read {path}: with its {journals[0].name} it has {size} bytes; let its"
                    " program or sqlite3 write that back first (PRAGMA wal_checkpoint(TRUNCATE))",
                    code="too_large",
                )
            with scratch() as folder:
                for file in (path, *journals):
                    shutil.copyfile(file, folder / file.name)
                self._read((folder / path.name).as_uri())
        except sqlite3.DatabaseError as error:
            raise Refused(f"cannot read {path}: {error}", code="damaged") from error

    def _read(self, uri: str) -> None:
        database = sqlite3.connect(uri, uri=True)
        try:
            database.row_factory = sqlite3.Row
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in tables.fetchall():
                if is_wanted(name):
                    quoted = name.replace('"', '""')
                    rows = database.execute(f'SELECT * FROM "{quoted}"').fetchall()
                    self._names[name] = [dict(row) for row in rows]
        finally:
            database.close()

    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def rows(self, table: str) -> list[Row]:
        return self._names.get(table, [])


def _size(path: Path) -> int:
    """0 for a file that is not there, or none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class PostgresTables:
    """Asked through psql, in a transaction that may only read; the password stays off `ps`."""

    written: float | None = None

    def __init__(self, url: str) -> None:
        if shutil.which("psql") is None:
            raise WaError(
                "cannot read a PostgreSQL database: install postgresql-client (psql)",
                code="client_missing",
            )
        self._environment = {**os.environ, **_connection(url)}
        self.user = lasting_user(self._others)

    def _others(self) -> str:
        programs = self._copy(
            "SELECT DISTINCT coalesce(nullif(application_name, ''), 'a program') AS name"
            " FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return ", ".join(sorted(str(row["name"]) for row in programs))

    def names(self) -> frozenset[str]:
        rows = self._copy(
            "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = ANY (current_schemas("
            "false))"
        )
        return frozenset(str(row["tablename"]) for row in rows)

    def rows(self, table: str) -> list[Row]:
        quoted = table.replace('"', '""')
        return self._copy(f'SELECT * FROM "{quoted}"')

    def _copy(self, query: str) -> list[Row]:
        command = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
        statement = f"COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)"
        out = ask_client([*command, "--command", statement], self._environment)
        csv.field_size_limit(sys.maxsize)
        return [dict(row) for row in csv.DictReader(out.splitlines(keepends=True))]


def ask_client(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a database's own client prints."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise WaError(
            f"cannot read the database: no answer in {_TIMEOUT:.0f} s", code="unreadable"
        ) from error
    except UnicodeDecodeError as error:
        raise Refused("cannot read the database: it holds no text", code="damaged") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its client ended with {done.returncode}"]
        cause = next((line for line in lines if line.startswith("ERROR")), lines[0])
        raise WaError(f"cannot read the database: {cause}", code="unreadable")
    return done.stdout


def port_of(url: str) -> str:
    try:
        return str(urlsplit(url).port or "")
    except ValueError:
        raise InvalidRequest("the database's port is no number", field="source") from None


def _connection(url: str) -> dict[str, str]:
    """The parts of a postgresql:// address as psql's environment."""
    parts = urlsplit(url)
    environment = {
        "PGHOST": unquote(parts.hostname or ""),
        "PGPORT": port_of(url),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.strip("/")),
        "PGCONNECT_TIMEOUT": "10",
    }
    options = dict(parse_qsl(parts.query))
    if "host" in options:
        environment["PGHOST"] = options["host"]
    if "sslmode" in options:
        environment["PGSSLMODE"] = options["sslmode"]
    schema = options.get("schema", "")
    path = f" -c search_path={schema}" if schema.replace("_", "").isalnum() else ""
    environment["PGOPTIONS"] = "-c default_transaction_read_only=on" + path
    return {name: value for name, value in environment.items() if value}


def text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)


def raw(row: Row, column: str) -> bytes:
    """A column of bytes: as SQLite gives it, or as PostgreSQL writes it (`\\x…`)."""
    value = row.get(column)
    if isinstance(value, bytes):
        return value
    written = "" if value is None else str(value)
    try:
        return bytes.fromhex(written.removeprefix("\\x"))
    except ValueError as error:
        raise Refused(f"its {column} is damaged: no bytes", code="damaged") from error
