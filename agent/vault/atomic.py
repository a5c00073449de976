"""Files that are old or new after any crash, never half of each; and reads that follow no link."""

import contextlib
import os
import re
import stat
import threading
from pathlib import Path

from agent.errors import VaultError
from agent.failpoint import failpoint
from agent.vault.errors import explain, planted

LARGEST = 16 << 20
"""Bytes of a file that we read whole."""

_LEFT_OVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-\d+\.tmp")


def write_atomically(
    folder: Path,
    folder_fd: int,
    name: str,
    content: bytes,
    *,
    mode: int,
    group: int | None = None,
    with_points: bool = True,
) -> None:
    """Replace `name` in an open folder; when this returns, the new content is on the disk.

    `with_points`: whether it counts for the fail points, which are about sessions.
    """
    _sweep_left_over(folder_fd, name)
    # Threads may write the same name at once: each needs a file of its own until the rename.
    temporary = f".{name}.{os.getpid()}-{threading.get_native_id()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder_fd)
        fd = os.open(temporary, flags, 0o600, dir_fd=folder_fd)
        try:
            _write_all(fd, content)
            if group is not None and os.fstat(fd).st_gid != group:
                os.fchown(fd, -1, group)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        if with_points:
            failpoint("after_tmp_write")
        os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        if with_points:
            failpoint("after_rename")
        os.fsync(folder_fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder_fd)
        raise explain("write", folder / name, error) from error


def read_plain_file(folder: Path, folder_fd: int, name: str) -> bytes:
    """The whole of a regular file. A link, pipe or device in its place is refused."""
    # O_NONBLOCK: opening a planted pipe must not wait for somebody to write into it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    path = folder / name
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise planted("read", path)
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise explain("read", path, error) from error
    if len(content) > LARGEST:
        raise VaultError(f"cannot read {path}: it is larger than {LARGEST} bytes")
    return content


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sweep_left_over(folder_fd: int, name: str) -> None:
    """Remove what a killed agent left: one agent lives per state directory, others are dead."""
    for entry in os.listdir(folder_fd):
        found = _LEFT_OVER.fullmatch(entry)
        if found and found["name"] == name and int(found["pid"]) != os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(entry, dir_fd=folder_fd)
