"""A checksum for each row that the agent acts on: it shows a changed byte, whatever it became."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

COLUMNS = {
    "instances": ("id", "engine", "enabled", "settings", "created_wall"),
    "sessions": ("instance", "record"),
    "keys": ("id", "hash", "scopes", "name", "created_wall"),
    "facts": ("name", "value"),
}
"""The columns that the sum of a table's row is taken over, its key first."""


def sum_of(*values: Any) -> int:
    """Over the values as SQLite gives them back: REAL columns as floats."""
    return zlib.crc32(json.dumps(values).encode())


def is_whole(row: Sequence[Any]) -> bool:
    """Of a row whose last value is its sum."""
    try:
        return bool(sum_of(*row[:-1]) == row[-1])
    except TypeError:  # bytes where a text belongs
        return False
