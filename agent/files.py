"""Files that are old or new after any crash, never half of each, and written through no link; and
named points at which a test can kill this process or make it fail, off unless asked for. Standard
library only: workers and one-shot repairs write through here too."""

import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import get_native_id
from typing import IO

INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
"""Socket on which an installed agent listens, and which the command line asks."""
VARIABLE = "WA_FAILPOINT"
"""Variable such as before_commit:kill, or retire_moved:raise:3 (the third time)."""


class FailpointHit(Exception):
    """Raised at a point that was set to `raise`."""


def failpoint(name: str) -> None:
    """Do what WA_FAILPOINT says for this point: nothing, in production."""
    # The environment is read each time so that no state hides here; one lookup costs nothing
    # beside the fsync that every one of these points stands next to.
    point, _, rest = os.environ.get(VARIABLE, "").partition(":")
    if point != name:
        return
    action, _, left = rest.partition(":")
    if left and int(left) > 1:
        os.environ[VARIABLE] = f"{point}:{action}:{int(left) - 1}"
    elif action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        raise FailpointHit(name)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY


@contextmanager
def opened(path: Path | str, flags: int = _FOLDER, *, within: int | None = None) -> Iterator[int]:
    """Yield a descriptor, closed when the block ends. `within`: `path` is relative to this one."""
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=within)
    try:
        yield fd
    finally:
        os.close(fd)


DEEPEST, MOST_ENTRIES = 32, 200_000
"""Folders within folders of a session, and entries of it, that are looked at: Baileys keeps several
files for each contact."""


@contextmanager
def replacement(
    folder_fd: int, name: str, *, mode: int = 0o600, group: int | None = None, points: bool = False
) -> Iterator[IO[bytes]]:
    """A file to write into, beside `name`; it takes that name on the disk when the block ends.

    `points`: whether this write passes the fail points, which are about sessions.
    """
    # Threads may write the same name at once: each needs a file of its own until the rename.
    temporary = f".{name}.{os.getpid()}-{get_native_id()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder_fd)
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder_fd), "wb") as file:
            yield file
            file.flush()
            fd = file.fileno()
            if group is not None and os.fstat(fd).st_gid != group:
                os.fchown(fd, -1, group)
            os.fchmod(fd, mode)
            os.fsync(fd)
        if points:
            failpoint("after_tmp_write")
        os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        if points:
            failpoint("after_rename")
        os.fsync(folder_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder_fd)
        raise


@contextmanager
def replacing(path: Path, *, mode: int = 0o600, group: int | None = None) -> Iterator[IO[bytes]]:
    """Replace a file as `replacement`, by path; its folder must exist."""
    with opened(path.parent) as fd, replacement(fd, path.name, mode=mode, group=group) as file:
        yield file


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name for `path` that always fits: the kernel's limit for a socket is 107 bytes."""
    with opened(path.parent, os.O_PATH | os.O_DIRECTORY) as folder:
        yield f"/proc/self/fd/{folder}/{path.name}"


def open_plain(path: Path | str, *, links: bool = False, within: int | None = None) -> IO[bytes]:
    """To read a file that another user may have put there: OSError for all but a plain file.

    A link leads elsewhere, and a FIFO or a lease makes its reader wait. `links`: the operator named
    the file, and may have named a link to it. `within`: `path` is relative to this descriptor.
    """
    fd = os.open(path, os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW), dir_fd=within)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # before fdopen, which leaves a folder's open
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(fd, "rb")


def plain_path(path: str) -> str | None:
    """Return the path; None for "". OSError if it is no plain file: a FIFO blocks a library."""
    with open_plain(path, links=True) if path else nullcontext():
        return path or None


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, group: int | None = None) -> None:
    """Replace a file; when this returns the new content is on the disk. OSError: the old one is."""
    with replacing(path, mode=mode, group=group) as file:
        file.write(content)


def remove_left_over(folder_fd: int, name: str) -> None:
    """Remove what killed writers of `name` left. No other process may be writing it."""
    for entry in os.listdir(folder_fd):
        match = re.fullmatch(r"\.(?P<name>.+)\.(?P<pid>\d+)-\d+\.tmp", entry)
        if match and match["name"] == name and int(match["pid"]) != os.getpid():
            with suppress(OSError):
                os.unlink(entry, dir_fd=folder_fd)


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    with opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as fd:
        os.fsync(fd)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, so that a power cut takes none of them back."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


def standing(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return names and status of an open SQLite database's folder, file, log and log's index."""
    names = (str(path.parent), *(f"{path}{beside}" for beside in ("", "-wal", "-shm")))
    return [(name, os.lstat(name)) for name in names]


def in_place(was: Sequence[tuple[str, os.stat_result]]) -> bool:
    """True if all of `standing` are in place, and the file is not empty."""
    with suppress(OSError):
        now = [os.lstat(name) for name, _ in was]
        return now[1].st_size > 0 and all(map(os.path.samestat, now, (it for _, it in was)))
    return False


def put_in_place(ready: Path, target: Path) -> None:
    """Give a complete file, or a folder whose files are synced, its final name in that folder."""
    sync(ready)
    os.rename(ready, target)  # noqa: PTH104 - the calls of `os` are what a test watches
    sync(target.parent)


def replace_folder(ready: Path, target: Path) -> None:
    """Move a folder of that name to NAME.old-TIME, then `put_in_place`."""
    if os.path.lexists(target):
        target.rename(f"{target}{time.strftime('.old-%Y%m%dT%H%M%SZ', time.gmtime())}")
    put_in_place(ready, target)


# One process for each folder, also after a cleaner of old files deleted the folder's file `lock`:
# the folder itself is locked besides. Standard library only: workers lock here too.


@contextmanager
def folder_locked(folder: Path, *, within: int | None = None) -> Iterator[None]:
    """BlockingIOError: another process has it. `within`: `folder` is relative to this descriptor.
    A file system that locks no folders leaves the file `lock` alone to tell."""
    with opened(folder, within=within) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
        yield


def refuses_writes(folder: Path) -> bool:
    """True if the folder is read-only, or its file system stopped all writes after an error.

    ext4 leaves the flags of the mount as they are when it stops (Linux 6.12, 6.1.113), so a file
    without a name is asked for, and gone again. False where it refuses for another reason (rights,
    a file system that has no such files).
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False
