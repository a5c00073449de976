"""One process for each folder, also after a cleaner of old files deleted the folder's file `lock`:
the folder itself is locked besides. Standard library only: workers lock here too."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_locked(folder: Path, *, within: int | None = None) -> Iterator[None]:
    """BlockingIOError: another process has it. `within`: `folder` is relative to this descriptor.
    A file system that locks no folders leaves the file `lock` alone to tell."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=within)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
    finally:
        os.close(fd)
