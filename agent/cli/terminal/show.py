"""Text for people: aligned tables, colours on a terminal, foreign text without control codes."""

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

_COLOURS = {"good": "32", "bad": "31", "soft": "2", "warn": "33"}
_STATUS_COLOURS = {
    "CONNECTED": "good",
    "AUTH_FAILURE": "bad",
    "DISCONNECTED": "soft",
    "QR_REQUIRED": "warn",
}


def clean(text: object) -> str:
    """Without control codes and direction marks: they could redraw or fake a terminal."""
    return "".join(
        letter if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co") else "�"
        for letter in str(text)
    )


def colour(text: str, kind: str, out: TextIO | None = None) -> str:
    if not kind or not (out or sys.stdout).isatty():
        return text
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m"


def print_json(answer: Any) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(columns_of, column)) for column in zip(heads, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return [colour(line(heads), "soft"), *(_tint(line(row), row) for row in cells)]


def _tint(line: str, row: Sequence[str]) -> str:
    for word, kind in _STATUS_COLOURS.items():
        if word in row:
            return line.replace(word, colour(word, kind), 1)
    return line


def columns_of(text: str) -> int:
    """How wide a terminal shows it."""
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def pad(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


def pair_lines(pairs: Mapping[str, object]) -> list[str]:
    width = max(map(len, pairs), default=0)
    return [f"{colour(name.ljust(width), 'soft')}  {clean(value)}" for name, value in pairs.items()]


def moment(text: str | None) -> str:
    """A time of the API in this machine's zone."""
    if not text:
        return "-"
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def next_try(instance: Mapping[str, Any], now: datetime | None = None) -> str:
    """When the agent tries the instance next; "" without a try, or when its time has come."""
    is_open = instance["circuit"] == "open"
    text = instance["circuit_opens"] if is_open else instance["next_attempt"]
    if not text:
        return ""
    left = (datetime.fromisoformat(text) - (now or datetime.now(UTC))).total_seconds()
    return f"next try in {duration(left)}" if left >= 1 else ""


def mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1048576:.0f} MiB"
