"""The trash: a session leaves in one rename and can come back in one. `sweep` is the only place in
the program that deletes session files."""

import json
import math
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import ID_PATTERN, InstanceId, parse_instance_id
from agent.errors import NotFound, Refused, VaultError
from agent.failpoint import failpoint
from agent.vault.ages import grow
from agent.vault.atomic import read_plain_file, write_atomically
from agent.vault.errors import explain, planted
from agent.vault.folders import (
    DOOMED,
    NAME_PATTERN,
    age_order,
    doom,
    made_at,
    next_name,
    open_own,
)
from agent.vault.locate import SESSION, modes_of, names_in, open_folder

TRASH = ".trash"
MANIFEST = "trash.json"
_NAME = re.compile(rf"(?P<id>{ID_PATTERN})\.(?P<copy>{NAME_PATTERN})")


@dataclass(frozen=True, slots=True)
class Retired:
    name: str
    path: Path
    at_wall: float
    id: InstanceId
    why: str


def retire(
    root: Path,
    id: InstanceId,
    why: str,
    *,
    now_wall: float | None = None,
    follows: bool = True,
) -> Retired:
    """Move an instance's folder into the trash. The worker must not run. `follows`: the session is
    to be in the trash; False: where its folder is a link, the link alone is, and what it leads to
    stays."""
    at_wall = time.time() if now_wall is None else now_wall
    checked = parse_instance_id(id)
    path = root / checked
    with open_own(root, TRASH, shared=True) as (root_fd, trash_fd):
        modes = modes_of(root_fd)
        with open_folder(path, checked, root_fd) as fd:
            if follows:
                _refuse_link(path, fd)
            manifest = {"version": 1, "id": checked, "why": why, "at_wall": at_wall}
            raw = json.dumps(manifest).encode()
            write_atomically(path, fd, MANIFEST, raw, mode=modes.file, group=modes.group)
        failpoint("retire_manifest")
        name = _move_in(path, checked, at_wall, root_fd, trash_fd)
        failpoint("retire_moved")
        os.fsync(trash_fd)
        os.fsync(root_fd)
    return Retired(name, root / TRASH / name, at_wall, checked, why)


def _refuse_link(path: Path, fd: int) -> None:
    """Refuse a folder that is a link: the trash would keep the link, and not the session."""
    if SESSION in names_in(fd) and stat.S_ISLNK(os.lstat(SESSION, dir_fd=fd).st_mode):
        found = planted("retire", path / SESSION)
        cure = f"move the link away (mv {path / SESSION} ELSEWHERE); what it leads to stays"
        raise VaultError(f"{found}; {cure}", code=found.code)


def list_trash(root: Path) -> list[Retired]:
    """What can be restored, newest first."""
    with open_own(root, TRASH, shared=True) as (_, trash_fd):
        matches = filter(None, map(_NAME.fullmatch, names_in(trash_fd)))
        newest_first = sorted(matches, key=lambda match: age_order(match["copy"]), reverse=True)
        return [_describe(root, match, trash_fd) for match in newest_first]


def restore_trash(root: Path, name: str) -> InstanceId:
    """Move a retired session back to its place; Refused when that is taken."""
    if not (match := _NAME.fullmatch(name)):
        raise NotFound(f"cannot restore {name!r:.80}: it is no name in the trash")
    id = parse_instance_id(match["id"])
    path = root / TRASH / name
    with open_own(root, TRASH, shared=True) as (root_fd, trash_fd):
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


def sweep(root: Path, keep: float, passed: float) -> list[str]:
    """Delete what sweeps saw here for `keep` seconds; return the names deleted. `passed`: seconds
    since the last sweep."""
    gone = []
    with open_own(root, TRASH, shared=True) as (_, trash_fd):
        names = names_in(trash_fd)
        matches = filter(None, map(_NAME.fullmatch, names))
        ours = [match[0] for match in matches if made_at(match["copy"]) < math.inf]
        ages = grow(root / TRASH, trash_fd, ours, passed)
        for name in names:
            if name in ages and ages[name] >= keep:
                if doom(root / TRASH, name, trash_fd, point="mid_sweep"):
                    gone.append(name)
            elif name.startswith(DOOMED) and doom(root / TRASH, name, trash_fd):
                gone.append(name.removeprefix(DOOMED))  # begun by an agent that was killed
    return gone


def _move_in(path: Path, id: InstanceId, at_wall: float, root_fd: int, trash_fd: int) -> str:
    taken = filter(None, map(_NAME.fullmatch, names_in(trash_fd)))
    name = f"{id}.{next_name((match['copy'] for match in taken), at_wall)}"
    try:
        os.rename(id, name, src_dir_fd=root_fd, dst_dir_fd=trash_fd)
    except OSError as error:
        raise explain("retire", path, error) from error
    return name


def _describe(root: Path, match: re.Match[str], trash_fd: int) -> Retired:
    name, path = match[0], root / TRASH / match[0]
    why = ""
    try:
        with open_folder(path, name, trash_fd) as fd:
            manifest = json.loads(read_plain_file(path, fd, MANIFEST))
        why = str(manifest["why"])
    except (VaultError, ValueError, KeyError, TypeError, RecursionError):
        pass  # the name alone is enough to restore it
    return Retired(name, path, made_at(match["copy"]), parse_instance_id(match["id"]), why)


def _remove_manifest(fd: int) -> None:
    try:
        os.unlink(MANIFEST, dir_fd=fd)
    except FileNotFoundError:
        return
    os.fsync(fd)
