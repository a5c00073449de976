"""A session's files moved to a shelf and back: by one rename, or one after another where the shelf
is on another disk. Opened folders are given as descriptors; no link is followed."""

import contextlib
import errno
import os
from pathlib import Path

from agent.engines.whaticket.keys.files import failed, write_private
from agent.engines.whaticket.keys.removed import FileEntry, read_file
from agent.errors import EngineError

_ELSEWHERE = (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EBUSY)


def moved_at_once(source: Path, target: Path) -> bool:
    """One rename; False where only single files can be moved: another disk, no such right."""
    try:
        if source.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        source.rename(target)
    except OSError as error:
        if error.errno in _ELSEWHERE:
            return False
        raise failed("move", source, error) from error
    return True


def move(file: FileEntry, source: Path, source_fd: int, target: Path, target_fd: int) -> None:
    try:
        os.rename(file.name, file.name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise failed("move", source / file.name, error) from error
    content, _ = read_file(source, source_fd, file.name)
    write_private(target / file.name, content)
    if read_file(target, target_fd, file.name)[0] != content:
        raise EngineError(f"cannot copy {file.name}: it reads differently", code="files")
    with contextlib.suppress(PermissionError):
        os.chown(file.name, file.uid, file.gid, dir_fd=target_fd, follow_symlinks=False)
    with contextlib.suppress(PermissionError):
        fd = os.open(file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target_fd)
        try:
            os.fchmod(fd, file.mode)
        finally:
            os.close(fd)
    try:
        os.unlink(file.name, dir_fd=source_fd)
    except OSError as error:
        raise failed("remove", source / file.name, error) from error


def make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise failed("create", path, error) from error


def is_there(name: str, fd: int) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
