"""The folder of a spool: for the session's worker alone, made when the first record comes."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from agent.files import replacement

STATE = "state.json"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600
_LONGEST_STATE = 4096


@dataclass(slots=True)
class State:
    """What the lines do not say. All are cursors, but for `lost` and `lost_since`."""

    origin: int = 0
    """The first one that this spool ever gave."""
    settled: int = 0
    """All up to here were delivered."""
    dropped: int = 0
    """All up to here were let go."""
    begun: int = 0
    """Where the newest segment begins."""
    bound: int = 0
    """None from here on lies in that segment."""
    lost: int = 0
    """How many were let go that were not delivered."""
    lost_first: int = 0
    """Where the last run of those begins; 0 = none."""
    lost_since: float = 0.0


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """With the session folder's own rights, so that the agent, another user of its group, can
        throw it away with the rest; what lies in it is for this user alone."""
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.path.chmod(self.path.parent.stat().st_mode & 0o770)
            self._sync(self.path.parent)

    def names(self) -> list[str]:
        """In their order; none where there is no folder."""
        try:
            with self._fd() as fd:
                return sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def open(self, name: str) -> IO[bytes]:
        with self._fd() as fd:
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _OPEN, dir_fd=fd)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.ELOOP, "not a plain file")
        return os.fdopen(file, "rb")

    def begin(self, name: str) -> int:
        """A descriptor of a new file, whose name is on the disk; of an old one nothing is left."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _OPEN
        with self._fd() as fd:
            file = os.open(name, flags, _PRIVATE, dir_fd=fd)
            try:
                os.fsync(fd)
            except OSError:
                os.close(file)
                raise
        return file

    def go_on(self, name: str) -> int:
        with self._fd() as fd:
            return os.open(name, os.O_RDWR | _OPEN, dir_fd=fd)

    def cut(self, name: str, size: int) -> None:
        """Return when the file has these bytes on the disk, and no more."""
        file = self.go_on(name)
        try:
            os.ftruncate(file, size)
            os.fdatasync(file)
        finally:
            os.close(file)

    def replace(self, name: str, aside: str, lines: Iterator[bytes]) -> None:
        """The file `name` of these lines; what it was before gets the name `aside` as well."""
        with self._fd() as fd:
            with suppress(FileExistsError):
                os.link(name, aside, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            with replacement(fd, name) as file:
                file.writelines(lines)

    def rename(self, name: str, aside: str) -> None:
        with self._fd() as fd:
            os.rename(name, aside, src_dir_fd=fd, dst_dir_fd=fd)

    def remove(self, name: str) -> None:
        with self._fd() as fd, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)

    def read_state(self) -> State:
        """What is not there, or cannot be read, is as for a new one."""
        try:
            with self.open(STATE) as file:
                raw = json.loads(file.read(_LONGEST_STATE))
            known = {key: type(own)(raw[key]) for key, own in asdict(State()).items() if key in raw}
            return State(**known)
        except (OSError, ValueError, TypeError, RecursionError):
            return State()

    def write_state(self, state: State) -> None:
        """Whole after a kill; after a power cut it may be an older one."""
        with self._fd() as fd, replacement(fd, STATE, durable=False) as file:
            file.write(json.dumps(asdict(state)).encode())

    @contextmanager
    def _fd(self) -> Iterator[int]:
        fd = os.open(self.path, _FOLDER)
        try:
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _sync(path: Path) -> None:
        fd = os.open(path, _FOLDER)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(file: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
