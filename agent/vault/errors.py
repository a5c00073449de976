"""From an OSError to an error that names the file, its owner and the obstacle."""

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from agent.errors import VaultError

_DENIED = (errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLANTED = (errno.ELOOP, errno.ENOTDIR)
LINK = "symlink"
"""The code where a link stands: what belongs there may be whole at its other end."""


def explain(verb: str, path: Path, error: OSError) -> VaultError:
    """A VaultError with a code that callers react to."""
    if error.errno in _DENIED:
        return VaultError(
            f"cannot {verb} {path}: {os.strerror(error.errno or 0).lower()}; {_blocker(path)}",
            code="permissions",
        )
    if error.errno in _FULL:
        return VaultError(f"cannot {verb} {path}: {_what_is_full(path, error)}", code="disk_full")
    if error.errno == errno.EROFS and not os.path.lexists(path):
        return VaultError(f"cannot {verb} {path}: {_missing(path)}", code="read_only")
    if error.errno == errno.EROFS:
        return VaultError(f"cannot {verb} {path}: the file system is read-only", code="read_only")
    if error.errno in _PLANTED:
        return planted(verb, path)
    if error.errno == errno.ENOENT:
        return VaultError(f"cannot {verb} {path}: it does not exist", code="absent")
    return VaultError(f"cannot {verb} {path}: {error.strerror or error}")


def _missing(path: Path) -> str:
    return f"it does not exist, and {path.parent} is read-only for this program"


def planted(verb: str, path: Path) -> VaultError:
    """A link or another thing stands where a plain folder or file belongs."""
    kind, code = "it is not what belongs there", "planted"
    try:
        mode = path.lstat().st_mode
    except OSError:
        mode = 0
    if stat.S_ISLNK(mode):
        code = LINK
        kind = f"it is a symbolic link (to {str(path.readlink())!r}), and links are never followed"
    elif stat.S_ISREG(mode):
        kind = "it is a file, not a folder"
    elif mode and not stat.S_ISDIR(mode):
        kind = "it is neither a plain file nor a folder"
    return VaultError(f"cannot {verb} {path}: {kind}", code=code)


def owner_of(status: os.stat_result) -> str:
    """user:group mode, with numbers where no name is known."""
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{user}:{group} mode {stat.S_IMODE(status.st_mode):04o}"


def _blocker(path: Path) -> str:
    """The first folder on the way that may not be entered, else the path itself."""
    me = f"this process is uid {os.geteuid()} gid {os.getegid()}"
    for part in reversed(path.absolute().parents):
        if not os.access(part, os.X_OK, effective_ids=True):
            break
    else:
        part = path
        if not os.path.lexists(part):
            part = path.parent
    try:
        return f"{part} belongs to {owner_of(part.lstat())}, {me}"
    except OSError:
        return f"{part} cannot be looked at, {me}"


def _what_is_full(path: Path, error: OSError) -> str:
    if error.errno == errno.EDQUOT:
        return "the disk quota is used up"
    try:
        room = os.statvfs(path if path.is_dir() else path.parent)
    except OSError:
        return "the disk is full"
    if room.f_files and not room.f_favail:
        return "the file system has no free inode (too many files), though bytes may be free"
    return "the disk is full"
