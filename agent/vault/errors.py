"""From an OSError to an error that names the file, its owner and the obstacle."""

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import VaultError

LINK = "symlink"
"""The code where a link stands: what belongs there may be whole at its other end."""


@dataclass(slots=True)
class doing:
    """An OSError inside is raised as the VaultError that explains it. No generator: thousands of
    small files pass through it."""

    verb: str
    path: Path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise explain(self.verb, self.path, error) from error


def explain(verb: str, path: Path, error: OSError) -> VaultError:
    """A VaultError with a code that callers react to."""
    code, cause = _cause_of(path, error)
    return VaultError(f"cannot {verb} {path}: {cause}", code=code)


def planted(verb: str, path: Path) -> VaultError:
    """A link or another thing stands where a plain folder or file belongs."""
    return explain(verb, path, OSError(errno.ELOOP, ""))


def _cause_of(path: Path, error: OSError) -> tuple[str | None, str]:
    match error.errno:
        case errno.EACCES | errno.EPERM as number:
            return "permissions", f"{os.strerror(number).lower()}; {_blocker(path)}"
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
        return LINK, link
    kinds = {stat.S_IFREG: "a file, not a folder", stat.S_IFDIR: "a folder, not a file"}
    return "planted", f"it is {kinds.get(stat.S_IFMT(mode), 'neither a plain file nor a folder')}"


def owner_of(status: os.stat_result) -> str:
    """user:group mode, with numbers where no name is known."""
    user, group = str(status.st_uid), str(status.st_gid)
    with suppress(KeyError):
        user = pwd.getpwuid(status.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return f"{user}:{group} mode {stat.S_IMODE(status.st_mode):04o}"


def _blocker(path: Path) -> str:
    """The first folder on the way that may not be entered, else the path itself."""
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
