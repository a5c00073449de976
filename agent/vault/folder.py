"""An open folder. All that lies in it is opened relative to it and through no link: a link that a
worker planted must never lead out of the session root."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import VaultError
from agent.files import remove_left_over, replacement
from agent.vault.errors import doing, planted

SESSION = "session"
"""The folder, inside an instance's own, that belongs to the engine."""
LARGEST = 64 << 20
"""Bytes of the largest file that is read whole."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a planted pipe must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Modes:
    """Modes and group of what is made: `group` is set where agent and workers are two users."""

    folder: int
    file: int
    group: int | None


OURS = Modes(0o700, 0o600, None)
"""For the agent alone."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The path is for people; the descriptor is what is used. It is what engines' rules look at."""

    path: Path
    fd: int

    @contextmanager
    def inner(self, *names: str) -> Iterator["Folder"]:
        """The folder below, one step for each name."""
        here, opened = self, list[int]()
        try:
            for name in names:
                path = here.path / name
                with doing("open", path):
                    opened.append(os.open(name, _FOLDER, dir_fd=here.fd))
                here = Folder(path, opened[-1])
            yield here
        finally:
            for fd in opened:
                os.close(fd)

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A plain file for reading; a link, pipe or device in its place is refused."""
        path = self.path / name
        with doing("read", path):
            fd = os.open(name, _FILE, dir_fd=self.fd)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise planted("read", path)
                yield fd
            finally:
                os.close(fd)

    def content(self, name: str) -> bytes:
        with self.opened(name) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise VaultError(f"cannot read {self.path / name}: it is larger than {LARGEST} bytes")
        return content

    def read(self, name: str) -> bytes | None:
        """The content of a file; None: it is missing."""
        with unless_absent():
            return self.content(name)
        return None

    def names(self) -> list[str]:
        with os.scandir(self.fd) as entries:
            return sorted(entry.name for entry in entries)

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        """The names at this path below, with their sizes (0: a link or pipe); {} = no folder."""
        sizes: dict[str, int] = {}
        with unless_absent(), self.inner(*PurePath(inner).parts) as folder:
            for name in folder.names():
                with suppress(FileNotFoundError):  # a running engine removed it
                    status = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
                    plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
                    sizes[name] = status.st_size if plain else 0
        return sizes

    def is_empty(self, name: str) -> bool:
        """True for a folder that is empty or missing."""
        with unless_absent(), self.inner(name) as folder:
            return not folder.names()
        return True

    def write(self, name: str, content: bytes, modes: Modes = OURS, *, points: bool = True) -> None:
        """Replace a file; when this returns, the new content is on the disk."""
        with doing("write", self.path / name):
            # One agent runs per state folder: what another process began here is never finished.
            remove_left_over(self.fd, name)
            mode, group = modes.file, modes.group
            with replacement(self.fd, name, mode=mode, group=group, points=points) as file:
                file.write(content)

    def make(self, name: str, modes: Modes) -> bool:
        """Make a folder; True when it was made now. One that is there stays, whatever its mode."""
        path = self.path / name
        with doing("create", path):
            try:
                os.mkdir(name, 0o700, dir_fd=self.fd)
            except FileExistsError:
                with self.inner(name):
                    return False
        with self.inner(name) as made, doing("prepare", path):
            status = os.fstat(made.fd)
            if modes.group is not None and status.st_gid != modes.group:
                os.fchown(made.fd, -1, modes.group)
            if stat.S_IMODE(status.st_mode) & 0o777 != modes.folder:
                inherited = status.st_mode & stat.S_ISGID
                try:
                    os.fchmod(made.fd, modes.folder | inherited)
                except PermissionError:
                    # RestrictSUIDSGID= refuses the group bit even where the folder inherited it.
                    os.fchmod(made.fd, modes.folder)
        return True

    def move(self, name: str, new: str, into: "Folder | None" = None) -> None:
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=(into or self).fd)

    def sync(self) -> None:
        os.fsync(self.fd)

    @property
    def modes(self) -> Modes:
        """A session root that its group may write serves two users of one group."""
        status = os.fstat(self.fd)
        if status.st_mode & stat.S_IRWXG == stat.S_IRWXG:
            return Modes(0o770, 0o660, status.st_gid)
        return OURS


@contextmanager
def unless_absent() -> Iterator[None]:
    """What is missing ends the block and is no error."""
    try:
        yield
    except VaultError as error:
        if error.code != "absent":
            raise


@contextmanager
def open_root(root: Path, *, create: bool = False) -> Iterator[Folder]:
    """The session root itself may be a link: its place is the administrator's choice. `create`:
    inside a folder that is there; one that was moved away is not made again in its place."""
    with doing("open", root):
        if create:
            root.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Folder(root, fd)
    finally:
        os.close(fd)


@contextmanager
def open_instance(root: Path, id: InstanceId, *names: str) -> Iterator[Folder]:
    """The folder of an instance, or one below it."""
    with open_root(root) as top, top.inner(parse_instance_id(id), *names) as folder:
        yield folder
