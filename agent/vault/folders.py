"""The vault's own folders in the session root, and the names and sweeping of their content.
Snapshots and half-made folders are for the agent alone: no worker can read another's session."""

import calendar
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import VaultError
from agent.failpoint import failpoint
from agent.log import bound
from agent.vault.errors import explain
from agent.vault.locate import Modes, make_folder, modes_of, names_in, open_folder, open_root

SNAPSHOTS = ".snapshots"
STAGING = ".staging"
"""Session folders that are being made; one rename puts them in place."""
MAKING = ".making"
DOOMED = ".deleting-"

OURS = Modes(0o700, 0o600, None)
NAME_PATTERN = r"[0-9]{8}T[0-9]{6}Z(?:\.[0-9]{1,4})?"
_NAME = re.compile(NAME_PATTERN)
TIME = "%Y%m%dT%H%M%SZ"

_log = bound(name=__name__)


@contextmanager
def open_own(
    root: Path, name: str, *, create: bool = True, shared: bool = False
) -> Iterator[tuple[int, int]]:
    """The session root and one of the vault's folders in it, on one file system. `shared`: made
    with the modes of the sessions, not for the agent alone."""
    path = root / name
    with open_root(root) as root_fd:
        modes = modes_of(root_fd) if shared else OURS
        if create and make_folder(path, name, root_fd, modes):
            os.fsync(root_fd)
        with open_folder(path, name, root_fd) as fd:
            if os.fstat(fd).st_dev != os.fstat(root_fd).st_dev:
                raise VaultError(
                    f"cannot use {path}: it is on another file system than {root},"
                    " so no session can be moved between them in one step",
                    code="other_file_system",
                )
            yield root_fd, fd


def free_name(folder_fd: int, at_wall: float) -> str:
    """A free name from a time: the second of one moment ends in .2."""
    stamp = time.strftime(TIME, time.gmtime(at_wall))
    taken = set(names_in(folder_fd))
    for number in range(1, 10_000):
        name = stamp + (f".{number}" if number > 1 else "")
        if name not in taken:
            return name
    raise VaultError(f"cannot name another copy of {stamp}: its names are used up")


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def age_order(name: str) -> tuple[float, int]:
    """Sorts names by when they were made."""
    stamp, _, number = name.partition(".")
    try:
        return float(calendar.timegm(time.strptime(stamp, TIME))), int(number or 1)
    except ValueError:  # 99 o'clock: not a name of the agent's
        return float("inf"), 0


def doom(path: Path, name: str, folder_fd: int, *, point: str = "") -> bool:
    """Hide an entry in one rename, then delete it; False (and a log line) if it stays. `point`: the
    fail point between the two."""
    doomed = name if name.startswith(DOOMED) else DOOMED + name
    try:
        if doomed != name:
            os.rename(name, doomed, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        if point:
            failpoint(point)
        # With a dir_fd it goes down by descriptors and never follows a link.
        shutil.rmtree(doomed, dir_fd=folder_fd)
    except OSError as error:
        blocked = Path(str(error.filename or ""))
        _log.warning(
            "%s", explain("delete", blocked if blocked.is_absolute() else path / name, error)
        )
        return False
    return True


def sweep_folder(path: Path, folder_fd: int, is_left_over: Callable[[str], bool]) -> list[str]:
    return [
        name for name in names_in(folder_fd) if is_left_over(name) and doom(path, name, folder_fd)
    ]
