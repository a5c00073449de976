"""A file of JSON lines that outlives a kill of its writer. Standard library only."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.files import open_plain, write_whole

Line = Mapping[str, Any]


class LineFile:
    """Each write is one call of the kernel; of the last line a kill may have left a part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0

    def read(self) -> Iterator[Line]:
        """All whole lines; what was written by half is cut off. Once, before the first append."""
        try:
            with open_plain(self._path) as file:
                raw = file.read()
        except FileNotFoundError:
            return
        self.size = raw.rfind(b"\n") + 1
        if self.size < len(raw):
            os.truncate(self._path, self.size)
        for line in raw[: self.size].splitlines():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found

    def append(self, *lines: Line) -> None:
        """OSError: nothing of it stays."""
        raw = _encode(lines)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, self._mode())
        try:
            if os.write(fd, raw) < len(raw):
                os.ftruncate(fd, self.size)
                raise OSError(f"cannot write all of {self._path}")
        finally:
            os.close(fd)
        self.size += len(raw)

    def replace(self, lines: Iterable[Line]) -> None:
        raw = _encode(lines)
        write_whole(self._path, raw, mode=self._mode())
        self.size = len(raw)

    def _mode(self) -> int:
        """As much as its folder gives the agent's group: the agent throws it away one day."""
        return self._path.parent.stat().st_mode & 0o660


def _encode(lines: Iterable[Line]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
