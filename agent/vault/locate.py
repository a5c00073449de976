"""An instance's folder: its path, and the owner and mode of the files in it. All is opened relative
to the session root without following a link: a planted link must never lead out of it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import VaultError
from agent.vault.errors import explain

SESSION = "session"
"""The folder, inside an instance's own, that belongs to the engine."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Modes:
    """Taken from the session root: one that its group may write serves two users of one group."""

    folder: int
    file: int
    group: int | None


def modes_of(root_fd: int) -> Modes:
    status = os.fstat(root_fd)
    if status.st_mode & stat.S_IRWXG == stat.S_IRWXG:
        return Modes(0o770, 0o660, status.st_gid)
    return Modes(0o700, 0o600, None)


@contextlib.contextmanager
def open_root(root: Path, *, create: bool = False) -> Iterator[int]:
    """The session root itself may be a link: its place is the administrator's choice. `create`:
    inside a folder that is there; one that was moved away is not made again in its place."""
    try:
        if create:
            root.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain("open", root, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_folder(path: Path, name: str, parent_fd: int) -> Iterator[int]:
    """An open folder inside an open one; `path` is its path, for people."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent_fd)
    except OSError as error:
        raise explain("open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_instance(root: Path, id: InstanceId) -> Iterator[int]:
    checked = parse_instance_id(id)
    with open_root(root) as root_fd, open_folder(root / checked, checked, root_fd) as fd:
        yield fd


def make_folder(path: Path, name: str, parent_fd: int, modes: Modes) -> bool:
    """True when it was made now; an existing one is left as it is, whatever its mode."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        with open_folder(path, name, parent_fd):
            return False
    except OSError as error:
        raise explain("create", path, error) from error
    with open_folder(path, name, parent_fd) as fd:
        try:
            status = os.fstat(fd)
            if modes.group is not None and status.st_gid != modes.group:
                os.fchown(fd, -1, modes.group)
            if stat.S_IMODE(status.st_mode) & 0o777 != modes.folder:
                _change_mode(fd, modes.folder, status.st_mode & stat.S_ISGID)
        except OSError as error:
            raise explain("prepare", path, error) from error
    return True


def _change_mode(fd: int, mode: int, inherited: int) -> None:
    try:
        os.fchmod(fd, mode | inherited)
    except PermissionError:
        # RestrictSUIDSGID= refuses the group bit even where the folder has inherited it.
        os.fchmod(fd, mode)


def names_in(folder_fd: int) -> list[str]:
    with os.scandir(folder_fd) as entries:
        return sorted(entry.name for entry in entries)


def is_empty(path: Path, name: str, parent_fd: int) -> bool:
    """True for a folder that is empty or missing."""
    try:
        with open_folder(path, name, parent_fd) as fd, os.scandir(fd) as entries:
            return next(entries, None) is None
    except VaultError as error:
        if error.code == "absent":
            return True
        raise
