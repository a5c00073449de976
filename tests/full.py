"""A disk without room."""

import contextlib
from pathlib import Path


def fill(disk: Path) -> Path:
    """To the last byte; the file that has all the room."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as filler:
        for piece in (1 << 16, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(piece))
    return path
