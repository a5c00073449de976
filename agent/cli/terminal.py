"""An answer for people: lines and aligned tables, colours on a terminal, times and sizes in words,
and foreign text without control codes."""

import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Row = dict[str, Any]
"""As the API gave it."""
Columns = Mapping[str, str | Callable[[Row], object]]
"""Each head with the field below it, or how its cell is made."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_SECONDS = ("seconds", "proof_age", "still_for")
"""Parts of the names of times in seconds."""
_MOMENT = "%Y-%m-%d %H:%M:%S"
_STYLES = {
    **{"CONNECTED": "green", "AUTH_FAILURE": "red", "DISCONNECTED": "dim", "QR_REQUIRED": "yellow"},
    **{"ok": "green", "note": "yellow", "wrong": "red"},
}
"""Colours of whole cells: of a status, of a level of the doctor."""


def clean(text: object) -> str:
    """Without control codes and direction marks: they could redraw or fake a terminal."""
    return "".join(
        letter if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co") else "�"
        for letter in str(text)
    )


def soft(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() else text


@dataclass(frozen=True, slots=True)
class Table:
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        """For a pipe: a line for each row, however long."""
        rows = [tuple(self.heads), *(tuple(map(clean, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def drawn(self, styles: Sequence[str] = ()) -> "RichTable":
        """For a terminal: long cells are wrapped inside their column. With `styles`, one for each
        row, a row is one line, of which the last cell is cut."""
        from rich import box, table, text  # only where a person looks

        drawn = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
        drawn.expand = bool(styles)
        for head in self.heads:
            whole = drawn.expand or head == self.heads[0]  # a name to copy
            drawn.add_column(head, overflow="fold", no_wrap=whole)
        drawn.columns[-1].ratio = 1 if styles else None
        for row, style in zip_longest(self.rows, styles):
            cells = map(clean, row)
            shown = (text.Text(cell, "" if style else _STYLES.get(cell, "")) for cell in cells)
            drawn.add_row(*shown, style=style)
        return drawn


def say(sentence: str) -> None:
    """To a person beside the answer."""
    print(clean(sentence), file=sys.stderr, flush=True)


def pair_lines(pairs: Mapping[str, object]) -> list[str]:
    width = max(map(len, pairs), default=0)
    return [f"{soft(name.ljust(width))}  {clean(value)}" for name, value in pairs.items()]


def moment(text: str | None) -> str:
    """A time of the API in this machine's zone."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime(_MOMENT)


def duration(seconds: float) -> str:
    whole = int(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def size(count: float) -> str:
    mebibytes = count / 1048576
    return f"{mebibytes:.0f} MiB" if mebibytes < 10_000 else f"{mebibytes / 1024:.0f} GiB"


def table_of(rows: Sequence[Row], columns: Columns) -> Table:
    def cell(row: Row, field: str | Callable[[Row], object]) -> object:
        return shown(field, row.get(field)) if isinstance(field, str) else shown("", field(row))

    cells = [tuple(cell(row, field) for field in columns.values()) for row in rows]
    return Table(tuple(columns), cells)


def shown(name: str, value: Any) -> object:
    """A field of the API for people: its name says the unit."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if name.endswith(("_seconds", "_bytes")):
        return duration(value) if name.endswith("_seconds") else size(value)
    if isinstance(value, float):
        if name.endswith("_wall"):
            return datetime.fromtimestamp(value).strftime(_MOMENT)
        return f"{value:.1f} s" if any(it in name for it in _SECONDS) else round(value, 3)
    return moment(value) if isinstance(value, str) and _TIME.fullmatch(value) else value
