"""An open folder. All that lies in it is opened relative to it and through no link: a link that a
worker planted must never lead out of the session root. An OSError becomes an error that names the
file, its owner and the obstacle."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from agent import errors, files
from agent.core.model import InstanceId, parse_instance_id


@dataclass(slots=True)
class doing:
    """An OSError inside is raised as the VaultError that explains it. No generator, and no path of
    each file, which Python keeps a name of: thousands of small files pass through it."""

    verb: str
    path: Path
    name: str = ""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise explain(self.verb, self.path / self.name, error) from error


def explain(verb: str, path: Path, error: OSError) -> errors.VaultError:
    """Return a VaultError with a code that callers react to."""
    code, cause = _cause_of(path, error)
    return errors.VaultError(f"cannot {verb} {path}: {cause}", code=code)


def planted(verb: str, path: Path) -> errors.VaultError:
    """Return the error for a link or the like in place of a plain folder or file."""
    return explain(verb, path, OSError(errno.ELOOP, ""))


def _cause_of(path: Path, error: OSError) -> tuple[str | None, str]:
    match error.errno:
        case errno.EACCES:
            return "permissions", f"permission denied; {_blocker(path)}: chown or chmod it"
        case errno.EPERM:
            return "permissions", f"operation not permitted; {_blocker(path)}"
        case errno.EDQUOT:
            return "disk_full", "the disk quota is used up"
        case errno.ENOSPC:
            return "disk_full", _what_is_full(path)
        case errno.EROFS if os.path.lexists(path):
            return "read_only", "the file system is read-only"
        case errno.EROFS:
            away = f"it does not exist, and {path.parent} is read-only for this program"
            return "read_only", away
        case errno.ELOOP | errno.ENOTDIR:
            return _thing_at(path)
        case errno.ENOENT:
            return "absent", "it does not exist"
    return None, error.strerror or str(error)


def _thing_at(path: Path) -> tuple[str, str]:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return "planted", "it is not what belongs there"
    if stat.S_ISLNK(mode):
        link = f"it is a symbolic link (to {str(path.readlink())!r}), and links are never followed"
        return "symlink", link  # what belongs there may be whole at its other end
    kinds = {stat.S_IFREG: "a file, not a folder", stat.S_IFDIR: "a folder, not a file"}
    return "planted", f"it is {kinds.get(stat.S_IFMT(mode), 'neither a plain file nor a folder')}"


def owner_of(status: os.stat_result) -> str:
    """Return `user:group mode`, with numbers where no name is known."""
    user, group = str(status.st_uid), str(status.st_gid)
    with suppress(KeyError):
        user = pwd.getpwuid(status.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return f"{user}:{group} mode {stat.S_IMODE(status.st_mode):04o}"


def _blocker(path: Path) -> str:
    """Return the first folder on the way that may not be entered, else the path itself."""
    me = f"this process is uid {os.geteuid()} gid {os.getegid()}"
    way = reversed(path.absolute().parents)
    closed = (part for part in way if not os.access(part, os.X_OK, effective_ids=True))
    part = next(closed, path if os.path.lexists(path) else path.parent)
    try:
        return f"{part} belongs to {owner_of(part.lstat())}, {me}"
    except OSError:
        return f"{part} cannot be looked at, {me}"


def _what_is_full(path: Path) -> str:
    with suppress(OSError):
        room = os.statvfs(path if path.is_dir() else path.parent)
        if room.f_files and not room.f_favail:
            return "the file system has no free inode (too many files), though bytes may be free"
    return "the disk is full"


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
"""Modes for the agent alone."""


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder, at which engines' rules look. The path is for people; the descriptor is
    used."""

    path: Path
    fd: int

    @contextmanager
    def inner(self, *names: str) -> Iterator["Folder"]:
        """Open the folder below, one step for each name."""
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
        """Open a plain file for reading; a link, pipe or device in its place is refused."""
        with doing("read", self.path, name), files.opened(name, _FILE, within=self.fd) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise planted("read", self.path / name)
            yield fd

    def content(self, name: str) -> bytes:
        with self.opened(name) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            why = f"cannot read {self.path / name}: it is larger than {LARGEST} bytes"
            raise errors.VaultError(why)
        return content

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None: it is missing."""
        with unless_absent():
            return self.content(name)
        return None

    def names(self) -> list[str]:
        with doing("list", self.path), os.scandir(self.fd) as entries:
            return sorted(entry.name for entry in entries)

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        """Return names at this path below with their sizes (0: a link or pipe); {} = no folder."""
        sizes: dict[str, int] = {}
        with unless_absent(), self.inner(*PurePath(inner).parts) as folder:
            for name in folder.names():
                # A running engine may have removed it.
                with doing("read", folder.path, name), suppress(FileNotFoundError):
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
        with doing("write", self.path, name):
            # One agent runs per state folder: what another process began here is never finished.
            files.remove_left_over(self.fd, name)
            mode, group = modes.file, modes.group
            with files.replacement(self.fd, name, mode=mode, group=group, points=points) as file:
                file.write(content)

    def make(self, name: str, modes: Modes) -> bool:
        """Make a folder; True if it was made now. One that is there stays, whatever its mode."""
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
        with doing("save", self.path):
            os.fsync(self.fd)

    @property
    def modes(self) -> Modes:
        """Modes of new entries: a session root that its group may write serves two users of it."""
        status = os.fstat(self.fd)
        if status.st_mode & stat.S_IRWXG == stat.S_IRWXG:
            return Modes(0o770, 0o660, status.st_gid)
        return OURS


@contextmanager
def unless_absent() -> Iterator[None]:
    """Run the block; a missing file ends it and is no error."""
    try:
        yield
    except errors.VaultError as error:
        if error.code != "absent":
            raise


@contextmanager
def unless_unusable() -> Iterator[None]:
    """A file that is missing, damaged or another's ends the block. A disk that fails now is an
    error: what the file says is not to be lost by it."""
    try:
        yield
    except errors.VaultError as error:
        if error.code in (errors.VaultError.code, "disk_full", "read_only"):
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
    """Open the folder of an instance, or one below it."""
    with open_root(root) as top, top.inner(parse_instance_id(id), *names) as folder:
        yield folder
