"""Folders that must not outlive a command: keys of sessions lie in them."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for this user alone. The next one deletes what a killed command left: each
    holds a lock for as long as its process lives."""
    prefix = f"wa-agent-{os.geteuid()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _delete_unused(left)
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        held = os.open(path, _FOLDER)
        fcntl.flock(held, fcntl.LOCK_EX)
        if path.exists():
            break
        os.close(held)  # another command swept it before it was locked
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _delete_unused(path: Path) -> None:
    with suppress(OSError):  # in use, or of no wa-agent
        fd = os.open(path, _FOLDER)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_uid == os.geteuid():
                shutil.rmtree(path)
        finally:
            os.close(fd)
