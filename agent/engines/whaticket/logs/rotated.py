"""Files that a log's rotation put aside between two readings: the marked one, and the next.

A mark is a position with hashes of the file's first bytes and of those before the position, so that
a copy (copytruncate), a renamed file and a compressed one are recognised by content.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

HEAD, LAST = 64, 1024
"""Bytes of a file's beginning, and before our place, that a hash is made of. Lines end alike: the
last ones must be enough to hold what differs, a time or an id."""
_STEP = 1 << 20
_MOST_OLD = 50


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one file was read, and how that place is known again."""

    position: int = 0
    head: str = ""
    head_length: int = 0
    last: str = ""
    """Of the bytes just before the position."""
    last_length: int = 0

    def stands_in(self, file: BinaryIO) -> bool:
        """Whether the file goes through this place; it is read up to there."""
        if not self.head_length or hash_of(file.read(self.head_length)) != self.head:
            return False
        if not self.last_length:
            return _skip(file, self.position - self.head_length)
        begin, read = self.position - self.last_length, self.head_length
        if begin < read:
            file.seek(0)
            read = 0
        return _skip(file, begin - read) and hash_of(file.read(self.last_length)) == self.last


def read_mark(raw: Mapping[str, Any]) -> Mark | None:
    """What `positions` kept; None where it cannot be."""
    try:
        mark = Mark(
            max(int(raw["position"]), 0),
            str(raw.get("head", "")),
            int(raw["head_length"]),
            str(raw.get("last", "")),
            int(raw.get("last_length", 0)),
        )
    except (KeyError, TypeError, ValueError):
        return None
    good = 0 <= mark.head_length <= HEAD and 0 <= mark.last_length <= min(LAST, mark.position)
    return mark if good else None


def missed(path: Path, mark: Mark, skip: frozenset[str]) -> Iterator[tuple[Path, int]]:
    """The files, oldest first, with what came after the mark and before the present log, each with
    where to begin. `skip`: keys of files that are read anyway."""
    old = [sibling for sibling in _siblings(path) if sibling[2] not in skip]
    for at, (_, file, _) in enumerate(old):
        if _stands_in(mark, file):
            yield file, mark.position
            yield from ((later, 0) for _, later, _ in old[at + 1 :])
            return


def rotated_since(path: Path, key: str, skip: frozenset[str]) -> Iterator[Path]:
    """Those that came between a renamed file, by its key, and the present log; oldest first."""
    old = _siblings(path)
    for at, (_, _, its_key) in enumerate(old):
        if its_key == key:
            yield from (later for _, later, other in old[at + 1 :] if other not in skip)
            return


def opened(path: Path) -> BinaryIO:
    """The bytes of a log, decompressed where its name says so."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def key_of(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


UNREADABLE = (OSError, EOFError, zlib.error)


def _siblings(path: Path) -> list[tuple[float, Path, str]]:
    """The log's old parts, by the time of their last change: name.1, name-20261120, name.2.gz."""
    siblings = []
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if entry.name.startswith((path.name + ".", path.name + "-")) and entry.is_file():
                    status = entry.stat()
                    siblings.append((status.st_mtime, Path(entry.path), key_of(status)))
    except OSError:
        return []
    return sorted(siblings)[-_MOST_OLD:]


def _stands_in(mark: Mark, path: Path) -> bool:
    try:
        with opened(path) as file:
            return mark.stands_in(file)
    except UNREADABLE:
        return False


def _skip(file: BinaryIO, count: int) -> bool:
    while count > 0:
        if not (piece := file.read(min(count, _STEP))):
            return False
        count -= len(piece)
    return True


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
