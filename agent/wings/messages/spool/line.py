"""A line of the spool: checksum, cursor, time, id and body, with tabs between. Pure."""

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.wings.messages.record import PRIVATE, encode

BEYOND = 1 << 52
"""No cursor, count or time of a spool's files is as large: what says so is damaged. Every reader of
JSON can hold what is below it."""


class Entry(NamedTuple):
    """A record on its way to the disk, which gives it its cursor."""

    id: bytes
    """As JSON, in which no tab and no end of a line can be."""
    body: bytes

    @property
    def mark(self) -> int:
        """What stands for its id in memory: 64 bits that nobody outside can foresee."""
        return hash(self.id)


class Line(NamedTuple):
    cursor: int
    kept: float
    id: bytes
    body: bytes

    def record(self) -> dict[str, Any]:
        """As a reader gets it."""
        body = json.loads(self.body)
        shown = {name: value for name, value in body.items() if not name.startswith(PRIVATE)}
        return {"cursor": self.cursor, "id": json.loads(self.id), **shown, "kept": self.kept}

    def whole(self) -> dict[str, Any]:
        """With what no reader gets."""
        return {"id": json.loads(self.id), **json.loads(self.body), "kept": self.kept}

    @property
    def wire_size(self) -> int:
        """Bytes that it takes on the link at most: there each sign beyond ASCII is escaped."""
        plain = len(self.id) + len(self.body)
        return 100 + (plain if self.body.isascii() and self.id.isascii() else plain * 3)


def entry_of(record: Mapping[str, Any]) -> Entry:
    """Of a record that is clean."""
    body = {name: value for name, value in record.items() if name != "id"}
    return Entry(json.dumps(record["id"]).encode(), encode(body))


def write_line(cursor: int, kept: float, entry: Entry) -> bytes:
    text = b"%d\t%.3f\t%b\t%b" % (cursor, kept, entry.id, entry.body)
    return b"%08x\t%b\n" % (zlib.crc32(text), text)


def read_line(raw: bytes) -> Line | None:
    """None where it is not as it was written."""
    if raw[8:9] != b"\t" or raw[-1:] != b"\n":
        return None
    text = raw[9:-1]
    if b"%08x" % zlib.crc32(text) != raw[:8]:
        return None
    try:
        cursor, kept, id, body = text.split(b"\t", 3)
        line = Line(int(cursor), float(kept), id, body)
    except ValueError:
        return None
    return line if 0 < line.cursor < BEYOND and 0 <= line.kept < BEYOND else None
