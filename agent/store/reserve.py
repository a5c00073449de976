"""A reserve on the disk: freed when it is full, so that what must be saved still can be."""

import contextlib
import os
from pathlib import Path

SIZE = 8 << 20
"""Bytes: SQLite's log may take half of it before SQLite reuses it, the rest is for rows."""

PLENTY = 4
"""The reserve is made only where so many times its size stays free."""


def ballast_of(path: Path) -> Path:
    return path.with_name(path.name + ".ballast")


def lay_in(path: Path) -> bool:
    """True when the reserve is there now."""
    ballast = ballast_of(path)
    try:
        if ballast.exists():
            if ballast.stat().st_size >= SIZE:
                return True
            ballast.unlink()  # an agent was killed while it laid it in
        if not path.exists():
            return False  # its folder was moved away
        room = os.statvfs(path.parent)
        if room.f_bavail * room.f_frsize < SIZE * (PLENTY + 1):
            return False
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)  # a file with holes would reserve nothing
        finally:
            os.close(fd)
    except OSError:
        with contextlib.suppress(OSError):
            ballast.unlink(missing_ok=True)
        return False
    return True


def free(path: Path) -> bool:
    """True when there was a reserve and it is room now."""
    try:
        ballast_of(path).unlink()
    except OSError:
        return False
    return True
