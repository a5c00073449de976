"""Which folders this worker really has: the agent compares them with what lies at their paths.

A folder that was deleted or replaced keeps its inode for us, and our session goes on in nowhere.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agent.errors import EngineError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OwnFolder:
    def __init__(self, folder: Path) -> None:
        self._mode = folder.stat().st_mode & 0o770
        self._open: dict[str, int] = {}
        for name, path in (("folder", folder), ("session", folder / "session")):
            with suppress(OSError):  # an engine without a session folder
                self._open[name] = os.open(path, _FOLDER)

    def describe(self) -> Mapping[str, object]:
        """Inodes by name, and which of them are in no folder any more."""
        statuses = {name: os.fstat(fd) for name, fd in self._open.items()}
        return {
            "inodes": {name: status.st_ino for name, status in statuses.items()},
            "deleted": [name for name, status in statuses.items() if not status.st_nlink],
        }

    def make_refuge(self, path: Path) -> Path:
        """An empty folder for what the engine saves elsewhere; the agent may read it."""
        import shutil  # its archives' libraries would lie in the memory of every worker

        try:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
            path.chmod(self._mode)
        except OSError as error:
            raise EngineError(f"cannot make {path}: {error.strerror}") from error
        return path

    def share(self, refuge: Path) -> None:
        for path in refuge.rglob("*"):
            path.chmod(self._mode if path.is_dir() else self._mode & 0o660)
