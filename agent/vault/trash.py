"""The trash: a session leaves in one rename and can come back in one.

`sweep` is the only place in the whole program that deletes session files.
"""

import calendar
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import ID_PATTERN, InstanceId, parse_instance_id
from agent.errors import NotFound, Refused, VaultError
from agent.failpoint import failpoint
from agent.log import bound
from agent.vault.atomic import read_plain_file, write_atomically
from agent.vault.errors import explain
from agent.vault.locate import make_folder, modes_of, names_in, open_folder, open_root

TRASH = ".trash"
MANIFEST = "trash.json"
DOOMED = ".deleting-"
"""What `sweep` has begun to delete; no longer restorable."""

_NAME = re.compile(rf"(?P<id>{ID_PATTERN})\.(?P<at>\d{{8}}T\d{{6}}Z)(?:\.\d{{1,6}})?")
_TIME = "%Y%m%dT%H%M%SZ"

_log = bound(name=__name__)


@dataclass(frozen=True, slots=True)
class Retired:
    """One session in the trash."""

    name: str
    path: Path
    at_wall: float
    id: InstanceId
    why: str


def retire(root: Path, id: InstanceId, why: str, *, now_wall: float | None = None) -> Retired:
    """Move an instance's folder into the trash. The worker must not run."""
    at_wall = time.time() if now_wall is None else now_wall
    checked = parse_instance_id(id)
    path = root / checked
    with _open_trash(root) as (root_fd, trash_fd):
        modes = modes_of(root_fd)
        with open_folder(path, checked, root_fd) as fd:
            manifest = {"version": 1, "id": checked, "why": why, "at_wall": at_wall}
            raw = json.dumps(manifest).encode()
            write_atomically(path, fd, MANIFEST, raw, mode=modes.file, group=modes.group)
        failpoint("retire_manifest")
        name = _move_in(path, checked, at_wall, root_fd, trash_fd)
        failpoint("retire_moved")
        os.fsync(trash_fd)
        os.fsync(root_fd)
    return Retired(name, root / TRASH / name, at_wall, checked, why)


def list_trash(root: Path) -> list[Retired]:
    """What can be restored, newest first."""
    with _open_trash(root) as (_, trash_fd):
        found = [
            _describe(root, name, match, trash_fd)
            for name in names_in(trash_fd)
            if (match := _NAME.fullmatch(name))
        ]
    return sorted(found, key=lambda one: (one.at_wall, one.name), reverse=True)


def restore_trash(root: Path, name: str) -> InstanceId:
    """Move a retired session back to where it was; Refused when something is there."""
    if not (match := _NAME.fullmatch(name)):
        raise NotFound(f"cannot restore {name!r:.80}: it is no name in the trash")
    id = parse_instance_id(match["id"])
    path = root / TRASH / name
    with _open_trash(root) as (root_fd, trash_fd):
        try:
            os.stat(name, dir_fd=trash_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFound(f"cannot restore {name}: it is not in the trash") from None
        with open_folder(path, name, trash_fd):
            pass  # a link or a file is no session
        if os.path.lexists(root / id):
            raise Refused(f"cannot restore {name}: {root / id} exists", code="exists")
        try:
            os.rename(name, id, src_dir_fd=trash_fd, dst_dir_fd=root_fd)
            os.fsync(root_fd)
            os.fsync(trash_fd)
            with open_folder(root / id, id, root_fd) as fd:
                _remove_manifest(fd)
        except OSError as error:
            raise explain("restore", path, error) from error
    return id


def sweep(root: Path, older_than: float) -> list[str]:
    """Delete what was retired before this moment (Unix seconds); return the names deleted."""
    gone = []
    with _open_trash(root) as (_, trash_fd):
        for name in names_in(trash_fd):
            match = _NAME.fullmatch(name)
            if match and _retired_at(match) < older_than:
                doomed = DOOMED + name
                try:
                    os.rename(name, doomed, src_dir_fd=trash_fd, dst_dir_fd=trash_fd)
                except OSError as error:
                    _log.warning("%s", explain("delete", root / TRASH / name, error))
                    continue
                failpoint("mid_sweep")
                gone += _delete(root, doomed, trash_fd)
            elif name.startswith(DOOMED):  # begun by an agent that was killed
                gone += _delete(root, name, trash_fd)
    return gone


@contextmanager
def _open_trash(root: Path) -> Iterator[tuple[int, int]]:
    """The session root and its trash, on one file system so that a move is one rename."""
    path = root / TRASH
    with open_root(root) as root_fd:
        if make_folder(path, TRASH, root_fd, modes_of(root_fd)):
            os.fsync(root_fd)
        with open_folder(path, TRASH, root_fd) as trash_fd:
            if os.fstat(trash_fd).st_dev != os.fstat(root_fd).st_dev:
                raise VaultError(
                    f"cannot use {path}: it is on another file system than {root},"
                    " so a session could not be moved there in one step",
                    code="other_file_system",
                )
            yield root_fd, trash_fd


def _move_in(path: Path, id: InstanceId, at_wall: float, root_fd: int, trash_fd: int) -> str:
    stamp = time.strftime(_TIME, time.gmtime(at_wall))
    for number in range(1, 10_000):
        name = f"{id}.{stamp}" + (f".{number}" if number > 1 else "")
        if os.path.lexists(path.parent / TRASH / name):
            continue
        try:
            # Never lands on another: what is in the trash has a manifest and so is not empty.
            os.rename(id, name, src_dir_fd=root_fd, dst_dir_fd=trash_fd)
        except OSError as error:
            raise explain("retire", path, error) from error
        return name
    raise VaultError(f"cannot retire {path}: its names in the trash are used up")


def _describe(root: Path, name: str, match: re.Match[str], trash_fd: int) -> Retired:
    path = root / TRASH / name
    why = ""
    try:
        with open_folder(path, name, trash_fd) as fd:
            manifest = json.loads(read_plain_file(path, fd, MANIFEST))
        why = str(manifest["why"])
    except (VaultError, ValueError, KeyError, TypeError, RecursionError):
        pass  # the name alone says enough to restore it
    return Retired(name, path, _retired_at(match), parse_instance_id(match["id"]), why)


def _retired_at(match: re.Match[str]) -> float:
    try:
        return float(calendar.timegm(time.strptime(match["at"], _TIME)))
    except ValueError:  # 99 o'clock: not made by us, so never old enough
        return float("inf")


def _remove_manifest(fd: int) -> None:
    try:
        os.unlink(MANIFEST, dir_fd=fd)
    except FileNotFoundError:
        return
    os.fsync(fd)


def _delete(root: Path, doomed: str, trash_fd: int) -> list[str]:
    try:
        # rmtree with a dir_fd goes down by descriptors and never follows a link.
        shutil.rmtree(doomed, dir_fd=trash_fd)
    except OSError as error:
        blocked = Path(str(error.filename or ""))
        path = blocked if blocked.is_absolute() else root / TRASH / doomed
        _log.warning("%s", explain("delete", path, error))
        return []
    return [doomed.removeprefix(DOOMED)]
