"""The files of a session's messages on the disk, used by one thread at a time: whole and checked or
not there, the oldest going first. Their names are made here, whatever a contact wrote."""

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.engines.files import new_sha256
from agent.failpoint import failpoint

FOLDER = "media"
_PART = ".part"
_PRIVATE = 0o600
_PIECE = 1 << 20
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BUSY_SECONDS = 60.0
"""A file that was read within them goes last, and its readers have it so long beside the quota."""
MOST_LEAVING = 4
"""Such files at a time: as many as a session's readers."""


@dataclass(slots=True)
class _Kept:
    size: int
    at_wall: float
    """When its message was kept."""
    read_at: float = -1e9
    """By the monotonic clock."""


@dataclass(slots=True)
class _Leaving:
    file: IO[bytes]
    read_at: float
    """By the monotonic clock."""


class Shelf:
    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self.most = most
        """Bytes of all of them."""
        self._files: dict[str, _Kept] | None = None
        self._leaving: dict[str, _Leaving] = {}
        """Files that made room while somebody read them: they have no name any more."""

    @property
    def there(self) -> bool:
        return self.path.is_dir()

    def size_of(self, name: str) -> int | None:
        """None: it is not kept."""
        kept = self._all().get(name)
        return None if kept is None else kept.size

    def claim(self, name: str) -> int | None:
        """Its size, for somebody who begins to read it; None: it is not kept."""
        if (kept := self._all().get(name)) is None:
            return None
        kept.read_at = time.monotonic()
        return kept.size

    def state(self) -> tuple[int, int]:
        """How many, and their bytes."""
        return len(self._all()), self._bytes()

    def begin(self, name: str) -> int:
        """A descriptor of a new file. What a message says of its size costs no other file its room:
        whoever wrote it may have lied."""
        self._make()
        self._remove(name)
        with self._fd() as fd:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _OPEN
            return os.open(name + _PART, flags, _PRIVATE, dir_fd=fd.number)

    def finish(self, name: str, file: int, at_wall: float) -> None:
        """Whole on the disk under its name when this returns; `file` is closed."""
        try:
            size = os.fstat(file).st_size
            os.utime(file, (at_wall, at_wall))
            os.fsync(file)
        finally:
            os.close(file)
        failpoint("media_loaded")
        self._make_room(size)
        with self._fd() as fd:
            os.rename(name + _PART, name, src_dir_fd=fd.number, dst_dir_fd=fd.number)
            os.fsync(fd.number)
        self._all()[name] = _Kept(size, at_wall)

    def drop(self, name: str, file: int) -> None:
        """What was begun is not finished."""
        os.close(file)
        with suppress(OSError), self._fd() as fd:
            os.unlink(name + _PART, dir_fd=fd.number)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """FileNotFoundError: it went meanwhile."""
        kept = self._all().get(name)
        if kept is None and (leaving := self._leaving.get(name)) is not None:
            leaving.read_at = time.monotonic()
            leaving.file.seek(offset)
            return leaving.file.read(length)
        if kept is None:
            raise FileNotFoundError(errno.ENOENT, "it is not kept any more")
        kept.read_at = time.monotonic()
        with self._open(name) as file:
            file.seek(offset)
            return file.read(length)

    def is_whole(self, name: str, sha256: str) -> bool:
        """Whether the file is what was loaded; one that is not goes."""
        digest = new_sha256()
        try:
            with self._open(name) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError:
            digest = new_sha256()
        if digest.hexdigest() == sha256:
            return True
        self._remove(name)
        return False

    def close(self) -> None:
        while self._leaving:
            self._leaving.popitem()[1].file.close()

    def trim(self, due: float) -> None:
        """Let those go whose messages were kept before that wall time."""
        self._let_go()
        for name, kept in list(self._all().items()):
            if kept.at_wall < due:
                self._remove(name)

    def _make_room(self, size: int) -> None:
        self._let_go()
        files, now = self._all(), time.monotonic()
        order = sorted(
            files, key=lambda name: (now - files[name].read_at < BUSY_SECONDS, files[name].at_wall)
        )
        while order and self._bytes() + size > self.most:
            name = order.pop(0)
            if now - files[name].read_at < BUSY_SECONDS:
                self._keep_open(name, files[name].read_at)
            self._remove(name)

    def _keep_open(self, name: str, read_at: float) -> None:
        """Its readers come to its end."""
        with suppress(OSError):
            file = self._open(name)
            if (older := self._leaving.pop(name, None)) is not None:
                older.file.close()
            self._leaving[name] = _Leaving(file, read_at)
        while len(self._leaving) > MOST_LEAVING:
            self._leaving.pop(next(iter(self._leaving))).file.close()

    def _let_go(self) -> None:
        now = time.monotonic()
        for name, leaving in list(self._leaving.items()):
            if now - leaving.read_at >= BUSY_SECONDS:
                self._leaving.pop(name).file.close()

    def _bytes(self) -> int:
        return sum(kept.size for kept in self._all().values())

    def _remove(self, name: str) -> None:
        self._all().pop(name, None)
        with suppress(FileNotFoundError), self._fd() as fd:
            os.unlink(name, dir_fd=fd.number)

    def _all(self) -> dict[str, _Kept]:
        """What is there, looked at once; what a kill left by half goes."""
        if self._files is None:
            files: dict[str, _Kept] = {}
            if self.there:
                with self._fd() as fd:
                    for name in os.listdir(fd.number):  # noqa: PTH208 - of a descriptor
                        status = os.stat(name, dir_fd=fd.number, follow_symlinks=False)
                        if name.endswith(_PART) or not stat.S_ISREG(status.st_mode):
                            with suppress(OSError):
                                os.unlink(name, dir_fd=fd.number)
                        else:
                            files[name] = _Kept(status.st_size, status.st_mtime)
            self._files = files
        return self._files

    def _open(self, name: str) -> IO[bytes]:
        with self._fd() as fd:
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _OPEN, dir_fd=fd.number)
        return os.fdopen(file, "rb")

    def _make(self) -> None:
        """With its parent's rights, as the folder of the messages has its own."""
        for path in (self.path.parent, self.path):
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                path.chmod(path.parent.stat().st_mode & 0o770)

    def _fd(self) -> "_Fd":
        return _Fd(self.path)


class _Fd:
    """The open folder: what is done by it happens there, whatever its path leads to meanwhile."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, _FOLDER)

    def __enter__(self) -> "_Fd":
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.number)
