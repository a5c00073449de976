"""The trash: a session leaves in one rename and can come back in one. `sweep` is the only place in
the program that deletes session files."""

import json
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core.words import ID_PATTERN, InstanceId, parse_instance_id
from agent.errors import NotFound, Refused, VaultError
from agent.files import failpoint
from agent.vault.folder import SESSION, Folder, doing, planted
from agent.vault.folders import (
    DOOMED,
    NAME_PATTERN,
    age_order,
    doom,
    grow,
    made_at,
    next_name,
    open_own,
)

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
    with open_own(root, TRASH, shared=True) as (top, trash):
        with top.inner(checked) as folder:
            if follows and (path := folder.path / SESSION).is_symlink():
                # The trash would keep the link, and not the session.
                found = planted("retire", path)
                cure = f"move the link away (mv {path} ELSEWHERE); what it leads to stays"
                raise VaultError(f"{found}; {cure}", code=found.code)
            manifest = {"version": 1, "id": checked, "why": why, "at_wall": at_wall}
            folder.write(MANIFEST, json.dumps(manifest).encode(), top.modes)
        failpoint("retire_manifest")
        taken = filter(None, map(_NAME.fullmatch, trash.names()))
        name = f"{id}.{next_name((match['copy'] for match in taken), at_wall)}"
        with doing("retire", root / checked):
            top.move(id, name, trash)
        failpoint("retire_moved")
        trash.sync()
        top.sync()
    return Retired(name, root / TRASH / name, at_wall, checked, why)


def list_trash(root: Path) -> list[Retired]:
    """What can be restored, newest first."""
    with open_own(root, TRASH, shared=True) as (_, trash):
        matches = filter(None, map(_NAME.fullmatch, trash.names()))
        newest_first = sorted(matches, key=lambda match: age_order(match["copy"]), reverse=True)
        return [_describe(trash, match) for match in newest_first]


def restore_trash(root: Path, name: str) -> InstanceId:
    """Move a retired session back to its place; Refused when that is taken."""
    if not (match := _NAME.fullmatch(name)):
        raise NotFound(f"cannot restore {name!r:.80}: it is no name in the trash")
    id = parse_instance_id(match["id"])
    with open_own(root, TRASH, shared=True) as (top, trash):
        if name not in trash.names():
            raise NotFound(f"cannot restore {name}: it is not in the trash")
        if os.path.lexists(root / id):
            raise Refused(f"cannot restore {name}: {root / id} exists", code="exists")
        # A link or a file is no session.
        with trash.inner(name), doing("restore", trash.path / name):
            trash.move(name, id, top)
            top.sync()
            trash.sync()
            with top.inner(id) as folder, suppress(FileNotFoundError):
                os.unlink(MANIFEST, dir_fd=folder.fd)
                folder.sync()
    return id


def sweep(root: Path, keep: float, passed: float) -> list[str]:
    """Delete what sweeps saw here for `keep` seconds; return the names deleted. `passed`: seconds
    since the last sweep."""
    gone = []
    with open_own(root, TRASH, shared=True) as (_, trash):
        names = trash.names()
        matches = filter(None, map(_NAME.fullmatch, names))
        ours = [match[0] for match in matches if made_at(match["copy"]) < math.inf]
        ages = grow(trash, ours, passed)
        for name in names:
            if name in ages and ages[name] >= keep:
                if doom(trash, name, point="mid_sweep"):
                    gone.append(name)
            elif name.startswith(DOOMED) and doom(trash, name):
                gone.append(name.removeprefix(DOOMED))  # begun by an agent that was killed
    return gone


def _describe(trash: Folder, match: re.Match[str]) -> Retired:
    name, why = match[0], ""
    # The name alone is enough to restore it.
    unreadable = suppress(VaultError, ValueError, KeyError, TypeError, RecursionError)
    with unreadable, trash.inner(name) as folder:
        why = str(json.loads(folder.content(MANIFEST))["why"])
    return Retired(
        name, trash.path / name, made_at(match["copy"]), parse_instance_id(match["id"]), why
    )
