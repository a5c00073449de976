"""Tables of a dump: plain text of pg_dump, mysqldump or mariadb-dump."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from agent.errors import Refused
from agent.wings.moving.program_tables import Row, is_wanted

Rows = Callable[[Iterator[str]], Iterator[tuple[str, Row]]]
"""Each row of a dump's lines, with its table."""


_LONGEST = 1 << 28
"""Characters of a line: a file of zeros has no other end."""


class DumpTables:
    user = ""

    def __init__(self, path: Path, rows: Rows) -> None:
        self.written: float | None = path.stat().st_mtime
        self._tables: dict[str, list[Row]] = {}
        try:
            with path.open(encoding="utf-8", newline="\n") as lines:
                for table, row in rows(_lines(lines)):
                    self._tables.setdefault(table, []).append(row)
        except (UnicodeDecodeError, ValueError) as error:
            raise Refused(f"cannot read {path}: it is no whole dump", code="damaged") from error

    def names(self) -> frozenset[str]:
        return frozenset(self._tables)

    def rows(self, table: str) -> list[Row]:
        return self._tables.get(table, [])


def _lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise ValueError("a line is longer than any session")
        yield line


def of_postgres(lines: Iterator[str]) -> Iterator[tuple[str, Row]]:
    """The rows of COPY blocks."""
    whole = False
    for line in lines:
        whole = whole or line.startswith("-- PostgreSQL database dump complete")
        if not line.startswith("COPY "):
            continue
        head, _, rest = line.removeprefix("COPY ").partition(" (")
        table = head.rpartition(".")[2].strip('"')
        columns = [name.strip().strip('"') for name in rest.partition(")")[0].split(",")]
        for row in lines:
            text = row.rstrip("\n")
            if text == "\\.":
                break
            if is_wanted(table):
                values = [
                    None if field == "\\N" else _unescaped(field, _COPY_ESCAPES)
                    for field in text.split("\t")
                ]
                yield table, dict(zip(columns, values, strict=True))
        else:
            raise ValueError("the dump ends within a table")
    if not whole:
        raise ValueError("the dump's last line is missing")


_COPY_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}


_TABLE = re.compile(r"(?:CREATE TABLE|INSERT INTO) `([^`]+)`")
_COLUMN = re.compile(r"\s+`([^`]+)` ")
_NAMES = re.compile(r"INSERT INTO `[^`]+` \(([^)]*)\)")
_ROW = re.compile(r"\s*\(((?:'(?:[^'\\]++|\\.|'')*+'|[^'()]++)*+)\)[,;]")
_FIELD = re.compile(r"(?:_binary )?'((?:[^'\\]++|\\.|'')*+)'|([^',]+)")
_SQL_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "Z": "\x1a"}


def of_mysql(lines: Iterator[str]) -> Iterator[tuple[str, Row]]:
    """The rows of INSERT statements. No value has a raw line end: `;` at one ends a statement."""
    columns: dict[str, list[str]] = {}
    whole = False
    for line in lines:
        whole = whole or line.startswith("-- Dump completed")
        begun = _TABLE.match(line)
        if begun is None:
            continue
        table, statement = begun[1], [line]
        while not statement[-1].endswith(";\n"):
            statement.append(next(lines, "") or _cut_off())
        if line.startswith("CREATE"):
            columns[table] = [column[1] for text in statement if (column := _COLUMN.match(text))]
        elif is_wanted(table):
            for row in _inserted("".join(statement), columns.get(table, [])):
                yield table, row
    if not whole:
        _cut_off()


def _inserted(statement: str, columns: list[str]) -> Iterator[Row]:
    if named := _NAMES.match(statement):
        columns = [name.strip(" `") for name in named[1].split(",")]
    place = statement.index(" VALUES") + len(" VALUES")
    while row := _ROW.match(statement, place):
        place = row.end()
        yield dict(zip(columns, map(_sql_value, _FIELD.finditer(row[1])), strict=True))
    if statement[place:].strip():
        raise ValueError("no row of an INSERT")


def _sql_value(field: re.Match[str]) -> str | None:
    written, bare = field.groups()
    if written is None:
        return None if bare.strip() == "NULL" else str(bare)
    return _unescaped(written.replace("''", "'"), _SQL_ESCAPES)


def _unescaped(field: str, escapes: dict[str, str]) -> str:
    return re.sub(
        r"\\(.)", lambda escape: escapes.get(escape[1], escape[1]), field, flags=re.DOTALL
    )


def _cut_off() -> str:
    raise ValueError("the dump ends too early")
