"""worker.log of a worker that the process host started: bounded, and there under its name. Its
worker looks after it while it writes, so without an agent, too. Standard library only."""

import contextlib
import os
import stat
import time
from pathlib import Path

LOG_LIMIT = 1 << 20
_LOOKS = 1.0
"""Seconds between two looks at the name; its size is known after each line."""


def open_log(folder: Path) -> int:
    """A descriptor that appends, so that a log can be shortened under a running worker."""
    path = folder / "worker.log"
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.rename(folder / f"worker.log.{time.time():.0f}")
        elif not stat.S_ISREG(mode):
            path.unlink()  # a pipe would be waited for, and a link's target is another file
    trim_log(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def trim_log(path: Path | str) -> None:
    """Keep the last full piece beside the present one; together they are bounded."""
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_size > LOG_LIMIT:  # of every worker, four times a minute
            whole = Path(path)
            with whole.open("rb+") as log, whole.with_suffix(".log.1").open("wb") as before:
                os.fchmod(before.fileno(), 0o600)
                log.seek(-LOG_LIMIT, os.SEEK_END)
                before.write(log.read(LOG_LIMIT))
                log.truncate(0)


class OwnLog:
    """The file behind this process's output, in its runtime folder."""

    def __init__(self, folder: Path, fd: int) -> None:
        self._folder, self._fd = folder, fd
        self._looked = 0.0

    def look(self) -> None:
        """Before each line. Whatever fails, the line goes where the last one went."""
        with contextlib.suppress(OSError):
            own = os.fstat(self._fd)
            if own.st_size > LOG_LIMIT and own.st_nlink:
                trim_log(self._folder / "worker.log")
            if (now := time.monotonic()) - self._looked < _LOOKS:
                return
            self._looked = now
            if not self._is_there(own):
                self._open_again()

    def _is_there(self, own: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.lstat(self._folder / "worker.log"), own)
        except FileNotFoundError:
            return False

    def _open_again(self) -> None:
        """It was removed or moved."""
        new = open_log(self._folder)
        try:
            for fd in {1, self._fd}:
                os.dup2(new, fd)
        finally:
            os.close(new)


def own_log(runtime: str, fd: int = 2) -> OwnLog | None:
    """None: the output is no worker.log of this worker's folder, but the journal or a terminal."""
    if not runtime:
        return None
    folder = Path(runtime)
    with contextlib.suppress(OSError):
        if os.path.samestat((folder / "worker.log").lstat(), os.fstat(fd)):
            return OwnLog(folder, fd)
    return None
