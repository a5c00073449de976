"""Tables of a MySQL or MariaDB server, asked through its own client."""

import os
import shutil
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree

from agent.errors import Refused, WaError
from agent.wings.moving.program_tables import Row, ask_client, lasting_user, port_of

_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"


class MysqlTables:
    """Each question is a transaction that may only read; the password stays off `ps`."""

    written: float | None = None

    def __init__(self, url: str) -> None:
        client = shutil.which("mariadb") or shutil.which("mysql")
        if client is None:
            raise WaError(
                "cannot read a MySQL database: install mariadb-client (mariadb)",
                code="client_missing",
            )
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        given = {
            "host": unquote(parts.hostname or ""),
            "port": port_of(url),
            "socket": options.get("socket", ""),
            "user": unquote(parts.username or ""),
            "database": unquote(parts.path.strip("/")),
        }
        self._command = [
            client,
            "--no-defaults",
            "--init-command=SET SESSION TRANSACTION READ ONLY",
            "--default-character-set=utf8mb4",
            "--connect-timeout=10",
            "--xml",
            *(f"--{name}={value}" for name, value in given.items() if value),
            # Without the look at its certificate the client may go on in plain text.
            *(["--ssl-verify-server-cert"] if options.get("ssl") == "true" else []),
        ]
        self._environment = {**os.environ, "MYSQL_PWD": unquote(parts.password or "")}
        self.user = lasting_user(self._others)

    def _others(self) -> str:
        programs = self._ask(
            "SELECT DISTINCT user AS name FROM information_schema.processlist"
            " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        return ", ".join(sorted(f"a client {row['name']!s}" for row in programs))

    def names(self) -> frozenset[str]:
        rows = self._ask(
            "SELECT table_name AS name FROM information_schema.tables"
            " WHERE table_schema = DATABASE()"
        )
        return frozenset(str(row["name"]) for row in rows)

    def rows(self, table: str) -> list[Row]:
        quoted = table.replace("`", "``")
        return self._ask(f"SELECT * FROM `{quoted}`")

    def _ask(self, query: str) -> list[Row]:
        out = ask_client([*self._command, "--execute", query], self._environment)
        try:
            rows = ElementTree.fromstring(out or "<resultset/>").iter("row")
        except ElementTree.ParseError as error:
            raise Refused("cannot read the database: it holds no text", code="damaged") from error
        return [
            {
                field.get("name", ""): None if field.get(_NIL) else field.text or ""
                for field in row.iter("field")
            }
            for row in rows
        ]
