"""Where in the text of a TOML file a key stands. tomllib does not tell."""

import re
from collections.abc import Mapping

_HEADER = re.compile(r"\s*(\[\[?)([^\]]+)\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def find_lines(text: str) -> dict[str, int]:
    """Line numbers (from 1) by dotted key; the second [[instance]] counts as instance[1]."""
    lines: dict[str, int] = {}
    arrays: dict[str, int] = {}
    table = ""
    inside = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if line.count(inside) % 2 else inside
            continue
        if line.lstrip().startswith("#"):
            continue
        if header := _HEADER.match(line):
            table = _dotted(header[2])
            if header[1] == "[[":
                lines.setdefault(table, number)
                arrays[table] = arrays.get(table, -1) + 1
                table = f"{table}[{arrays[table]}]"
            else:
                table = _in_array(table, arrays)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            dotted = _dotted(key[1])
            lines.setdefault(f"{table}.{dotted}" if table else dotted, number)
            # a.b = 1 also says where the table a begins
            lines.setdefault(table if table else dotted.split(".")[0], number)
        inside = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
    return lines


def line_of(lines: Mapping[str, int], key: str) -> int | None:
    """The line of a key, or of the nearest table around it (an inline one, say)."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None


def _dotted(text: str) -> str:
    return ".".join(part.strip("\"'") for part in _PART.findall(text))


def _in_array(table: str, arrays: dict[str, int]) -> str:
    head, dot, rest = table.partition(".")
    return f"{head}[{arrays[head]}]{dot}{rest}" if head in arrays else table
