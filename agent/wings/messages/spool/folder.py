"""The folder of a spool: for the session's worker alone, made when the first record comes."""

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from agent.files import replacement
from agent.wings.messages.spool.damage import Damage
from agent.wings.messages.spool.holes import Hole, never_given, read_holes
from agent.wings.messages.spool.line import BEYOND

STATE = "state.json"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600
LONGEST_STATE = 1 << 14
LARGEST_CURSOR = BEYOND >> 1
"""Cursors begin with milliseconds since 1970: those of a state leave room above them."""


@dataclass(slots=True)
class State:
    """What the lines do not say. All whole numbers are cursors, but for `lost`."""

    origin: int = 0
    """The first one that this spool ever gave."""
    counted: int = 0
    """From here on what is missing counts as lost: what is below was of another spool."""
    settled: int = 0
    """All up to here were delivered."""
    dropped: int = 0
    """All up to here were let go."""
    begun: int = 0
    """Where the newest segment begins."""
    bound: int = 0
    """None from here on lies in that segment."""
    lost: int = 0
    """How many went that were not delivered: let go, or damaged."""
    lost_first: int = 0
    """Where the last run of those begins; 0 = none."""
    lost_since: float = 0.0
    holes: list[Hole] = field(default_factory=list)
    """In their order."""
    owner: str = ""
    """The session whose folder it is; "" = an older version wrote it."""
    damage: list[Damage] = field(default_factory=list)
    """Between the lines that are kept, and behind them."""
    inode: str = ""
    """Of its newest file: a copy has another one; "" = nobody noted it."""
    booted: float = 0.0
    """When the machine was, by the clock of then: another one after a boot."""

    def note_dropped(self, first: int, begun: float, last: int) -> None:
        """The segment of that first cursor goes, and all up to the cursor `last` with it."""
        undelivered = max(first, self.settled + 1)
        lost = last - undelivered + 1 - never_given(undelivered, last, self.holes)
        if lost <= 0:
            self.lost_first, self.lost_since = 0, 0.0
        else:
            self.lost += lost
            self.lost_first = self.lost_first or undelivered
            self.lost_since = self.lost_since or begun
        self.dropped = last

    def begin_of(self, oldest: int) -> int:
        """The cursor with which a reader from the oldest begins: damage before it is told, too."""
        damaged = (first for first, last, _ in self.damage if self.dropped < first <= last < oldest)
        return min(damaged, default=oldest)


def parse_state(text: bytes) -> State:
    """ValueError, TypeError or RecursionError for what is no state."""
    raw = json.loads(text)
    try:
        known = {key: type(own)(raw[key]) for key, own in asdict(State()).items() if key in raw}
        return checked(State(**{**known, "holes": read_holes(known.get("holes", []))}))
    except OverflowError as error:  # of int(Infinity)
        raise ValueError("a number is too large") from error


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

    def must_be_here(self) -> None:
        """FileNotFoundError where the folder itself is away: nothing of it counts as lost."""
        if not self.path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder is not there", str(self.path))

    def find_foreign(self, owner: str) -> str:
        """Why it is not this session's folder; "" = it is, or there is none. `owner`: "" = whose
        it is does not matter."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            return "it is no folder"
        other = self.read_state().owner if self.path.is_dir() else ""
        return "" if not owner or other in ("", owner) else f"it is the folder of session {other}"

    def set_aside(self) -> str:
        """The name that it has now."""
        number = 0
        while True:
            aside = self.path.with_name(f"{self.path.name}.aside-{int(time.time()) + number}")
            if not os.path.lexists(aside):
                self.path.rename(aside)
                self._sync(self.path.parent)
                return aside.name
            number += 1

    def look_at(self, name: str) -> tuple[str, float]:
        """Its inode, and when it was changed last; of what is no plain file nothing."""
        try:
            with self.open(name) as file:
                status = os.fstat(file.fileno())
        except OSError:
            return "", 0.0
        return str(status.st_ino), status.st_ctime

    def names(self) -> list[str]:
        """In their order; none where there is no folder."""
        try:
            with self.descriptor() as fd:
                return sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []

    def open(self, name: str) -> IO[bytes]:
        with self.descriptor() as fd:
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _OPEN, dir_fd=fd)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.ELOOP, "not a plain file")
        return os.fdopen(file, "rb")

    def begin(self, name: str) -> int:
        """A descriptor of a new file, whose name is on the disk; of an old one nothing is left."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _OPEN
        with self.descriptor() as fd:
            file = os.open(name, flags, _PRIVATE, dir_fd=fd)
            try:
                os.fchmod(file, _PRIVATE)
                os.fsync(fd)
            except OSError:
                os.close(file)
                raise
        return file

    def go_on(self, name: str) -> int:
        with self.descriptor() as fd:
            return os.open(name, os.O_RDWR | _OPEN, dir_fd=fd)

    def cut(self, name: str, size: int) -> None:
        """Return when the file has these bytes on the disk, and no more."""
        file = self.go_on(name)
        try:
            if os.fstat(file).st_size != size:
                os.ftruncate(file, size)
            os.fdatasync(file)
        finally:
            os.close(file)

    def replace(self, name: str, aside: str, lines: Iterator[bytes]) -> None:
        """The file `name` of these lines; what it was before gets the name `aside` as well."""
        with self.descriptor() as fd:
            with suppress(FileExistsError):
                os.link(name, aside, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            with replacement(fd, name, mode=_PRIVATE) as file:
                file.writelines(lines)

    def rename(self, name: str, aside: str) -> None:
        with self.descriptor() as fd:
            os.rename(name, aside, src_dir_fd=fd, dst_dir_fd=fd)

    def remove(self, name: str) -> None:
        with self.descriptor() as fd, suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)

    def read_state(self) -> State:
        """What is not there, or cannot be read, is as for a new one."""
        try:
            with self.open(STATE) as file:
                return parse_state(file.read(LONGEST_STATE))
        except (OSError, ValueError, TypeError, RecursionError):
            return State()

    def write_state(self, state: State, *, durable: bool = False) -> None:
        """Whole after a kill; after a power cut it may be an older one that was not `durable`."""
        with (
            self.descriptor() as fd,
            replacement(fd, STATE, mode=_PRIVATE, durable=durable) as file,
        ):
            file.write(json.dumps(asdict(state)).encode())

    @contextmanager
    def descriptor(self) -> Iterator[int]:
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


def checked(state: State) -> State:
    """ValueError where damage is none, or a number is none that a spool can have written."""
    state.damage = [[int(part) for part in each] for each in state.damage]
    if not all(len(each) == 3 and 0 < each[0] <= each[1] for each in state.damage):
        raise ValueError("damage is three numbers")
    own = [each for each in asdict(state).values() if isinstance(each, int | float)]
    listed = [part for each in (*state.holes, *state.damage) for part in each]
    if not all(0 <= number < LARGEST_CURSOR for number in (*own, *listed)):  # NaN is in no range
        raise ValueError("a number is out of range")
    return state


def write_all(file: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
