"""Folders that must not outlive a command: keys of sessions lie in them."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import WaError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for this user alone. The next one deletes what a killed command left: each
    holds a lock for as long as its process lives."""
    home = Path(tempfile.gettempdir()) / f"wa-agent-{os.geteuid()}"
    home_fd = _open_own(home)
    try:
        fcntl.flock(home_fd, fcntl.LOCK_EX)
        _sweep(home_fd)
        path = Path(tempfile.mkdtemp(dir=home))
        held = os.open(path, _FOLDER)
        fcntl.flock(held, fcntl.LOCK_EX)
    finally:
        os.close(home_fd)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _open_own(home: Path) -> int:
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    cause = "it is open to other users; remove it or set TMPDIR"
    try:
        fd = os.open(home, _FOLDER)
        status = os.fstat(fd)
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return fd
        os.close(fd)
    except OSError as error:
        cause = f"{error.strerror}; set TMPDIR"
    raise WaError(f"cannot use {home}: {cause}", code="unusable")


def _sweep(home_fd: int) -> None:
    for name in os.listdir(home_fd):
        # One that is none of ours, or in use; the next sweep deletes it.
        with suppress(OSError):
            fd = os.open(name, _FOLDER, dir_fd=home_fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(name, dir_fd=home_fd)
            finally:
                os.close(fd)
