"""Opens an engine's files to the group that worker and agent share.

A browser makes its files for its user alone, whatever the umask says; the agent, another user,
could then neither copy a session nor throw it away.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

DEEPEST = 32
MOST_ENTRIES = 200_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def share_session(folder: Path) -> int:
    """Give our own entries below session/ the group's bits that the instance's folder has.

    Returns how many were changed. Follows no link; what cannot be changed stays as it is.
    """
    try:
        wanted = folder.stat().st_mode & stat.S_IRWXG
        top = os.open(folder / "session", _FOLDER)
    except OSError:
        return 0
    try:
        if not wanted:
            return 0
        return sum(islice(_share(top, wanted, 1), MOST_ENTRIES))
    finally:
        os.close(top)


def _share(folder: int, wanted: int, depth: int) -> Iterator[bool]:
    """For each entry, whether it was changed."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # gone since, or not ours
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
                    inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                    try:
                        yield _open_up(inner, wanted)
                        yield from _share(inner, wanted, depth + 1)
                    finally:
                        os.close(inner)
                elif stat.S_ISREG(status.st_mode):
                    if status.st_mode & wanted & ~stat.S_IXGRP == wanted & ~stat.S_IXGRP:
                        yield False
                        continue
                    file = os.open(entry.name, _FILE, dir_fd=folder)
                    try:
                        yield _open_up(file, wanted & ~stat.S_IXGRP)
                    finally:
                        os.close(file)


def _open_up(fd: int, wanted: int) -> bool:
    status = os.fstat(fd)
    # A second name may lie where it is not ours to open anything.
    linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    if linked or status.st_uid != os.geteuid() or status.st_mode & wanted == wanted:
        return False
    # Without a set-group-id bit, which our unit may not set: all that we make has that group.
    os.fchmod(fd, (status.st_mode | wanted) & 0o777)
    return True
