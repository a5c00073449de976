"""The vault's own folders in the session root, and the names and sweeping of their content.
Snapshots and half-made folders are for the agent alone: no worker can read another's session."""

import calendar
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
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
NAME_PATTERN = r"[0-9]{8}T[0-9]{6}Z(?:-[0-9]{1,9}|\.[0-9]{1,6})?"
"""TIME-NUMBER: the number orders copies, for a clock goes back; the time is for people. Older
versions wrote TIME, and TIME.2 for the second of one moment."""
_NAME = re.compile(NAME_PATTERN)
_TIME = "%Y%m%dT%H%M%SZ"
_DAY = 86400.0

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


def next_name(names: Iterable[str], at_wall: float) -> str:
    """The name of a copy that is newer than these, whatever the clock says; others count not."""
    number = 1 + max(map(_number, filter(is_name, names)), default=0)
    return f"{time.strftime(_TIME, time.gmtime(at_wall))}-{number}"


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def age_order(name: str) -> tuple[int, bool, float, int]:
    """Sorts copies by when they were made. One without a number is older than those with one; a
    time in the future is of a clock that was wrong, and older than other times."""
    at_wall, of_moment = made_at(name), name.partition(".")[2]
    return _number(name), at_wall <= time.time() + _DAY, at_wall, int(of_moment or 1)


def made_at(name: str) -> float:
    """Unix seconds, by the clock of that moment."""
    try:
        return float(calendar.timegm(time.strptime(name[:16], _TIME)))
    except ValueError:  # 99 o'clock: not a name of the agent's
        return float("inf")


def _number(name: str) -> int:
    return int(name.partition("-")[2] or 0)


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
