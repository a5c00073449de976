"""Files in an open folder: written whole, read without following a link; errors say why."""

import os
import stat
from pathlib import Path

from agent.errors import VaultError
from agent.files import remove_left_over, replacement
from agent.vault.errors import explain, planted

LARGEST = 16 << 20
"""The largest file that is read whole."""


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
    """Replace `name` in an open folder; when this returns, the new content is on the disk."""
    try:
        # One agent runs per state folder: a file that another process began here is never finished.
        remove_left_over(folder_fd, name)
        with replacement(folder_fd, name, mode=mode, group=group, points=with_points) as file:
            file.write(content)
    except OSError as error:
        raise explain("write", folder / name, error) from error


def read_plain_file(folder: Path, folder_fd: int, name: str) -> bytes:
    """The whole of a regular file. A link, pipe or device in its place is refused."""
    # O_NONBLOCK: opening a planted pipe must not wait for a writer.
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
