"""The vault's own folders in the session root: their names, ages and sweeping, and whether the disk
has room for what is about to be written. Snapshots and half-made folders are for the agent alone:
no worker can read another's session.

In the trash a session leaves in one rename and can come back in one. `sweep` is the only place in
the program that deletes session files.
"""

import calendar
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage, rmtree

from agent.core.words import ID_PATTERN, InstanceId, parse_instance_id
from agent.errors import NotFound, Refused, VaultError
from agent.files import failpoint, refuses_writes
from agent.log import going_on, log
from agent.vault.folder import OURS, SESSION, Folder, doing, explain, open_root, planted

SNAPSHOTS = ".snapshots"
STAGING = ".staging"
"""Session folders that are being made; one rename puts them in place."""
MAKING = ".making"
DOOMED = ".deleting-"
AGES = "ages.json"

NAME_PATTERN = r"[0-9]{8}T[0-9]{6}Z(?:-[0-9]{1,9}|\.[0-9]{1,6})?"
"""TIME-NUMBER: the number orders copies, for a clock goes back; the time is for people. Older
copies, and what a backend's files are put aside as, have no number."""
_TIME = "%Y%m%dT%H%M%SZ"


@contextmanager
def open_own(
    root: Path, name: str, *, create: bool = True, shared: bool = False
) -> Iterator[tuple[Folder, Folder]]:
    """The session root and one of the vault's folders in it, on one file system. `shared`: made
    with the modes of the sessions, not for the agent alone."""
    with open_root(root) as top:
        if create and top.make(name, top.modes if shared else OURS):
            top.sync()
        with top.inner(name) as own:
            if os.fstat(own.fd).st_dev != os.fstat(top.fd).st_dev:
                raise VaultError(
                    f"cannot use {own.path}: it is on another file system than {root},"
                    " so no session can be moved between them in one step",
                    code="other_file_system",
                )
            yield top, own


def next_name(names: Iterable[str], at_wall: float) -> str:
    """Return the name of a copy newer than these, whatever the clock says; others do not count."""
    newest, _ = max(map(age_order, filter(is_name, names)), default=(0, ""))
    return f"{time.strftime(_TIME, time.gmtime(at_wall))}-{newest + 1}"


def is_name(text: str) -> bool:
    return re.fullmatch(NAME_PATTERN, text) is not None


def age_order(name: str) -> tuple[int, str]:
    """Return a key that sorts copies by the time of their making."""
    return int(name.partition("-")[2] or 0), name


def made_at(name: str) -> float:
    """Return the Unix time of a copy, by the clock of that moment."""
    try:
        return float(calendar.timegm(time.strptime(name[:16], _TIME)))
    except ValueError:  # 99 o'clock: not a name of the agent's
        return float("inf")


def grow(folder: Folder, names: Iterable[str], passed: float) -> dict[str, float]:
    """The age of each name, `passed` seconds after the last call; a new name begins with 0. Ages
    are seconds of the agent's own count: by a wall clock that is years ahead, all that the agent is
    going to delete would be old at once."""
    before: dict[str, float] = {}
    # Ages that cannot be read begin again: the agent deletes later then.
    with suppress(VaultError, ValueError, TypeError, AttributeError, RecursionError):
        before = {str(name): float(age) for name, age in json.loads(folder.content(AGES)).items()}
    ages = {name: before[name] + passed if name in before else 0.0 for name in names}
    with going_on(f"what lies in {folder.path} does not grow older"):
        if not ages:
            with suppress(FileNotFoundError):
                os.unlink(AGES, dir_fd=folder.fd)
        elif ages != before:
            folder.write(AGES, json.dumps(ages).encode(), points=False)
    return ages


def doom(folder: Folder, name: str, *, point: str = "") -> bool:
    """Hide an entry in one rename, then delete it; False (and a log line) if it stays. `point`: the
    fail point between the two."""
    doomed = name if name.startswith(DOOMED) else DOOMED + name
    try:
        if doomed != name:
            folder.move(name, doomed)
        if point:
            failpoint(point)
        # With a dir_fd it goes down by descriptors and never follows a link.
        rmtree(doomed, dir_fd=folder.fd)
    except OSError as error:
        log.warning("%s", explain("delete", folder.path / name, error))
        return False
    return True


def sweep_folder(folder: Folder, is_left_over: Callable[[str], bool]) -> list[str]:
    return [name for name in folder.names() if is_left_over(name) and doom(folder, name)]


LEAST_FREE = 200 << 20
LEAST_SHARE = 0.02
LEAST_FILES = 100


def lacks_room(
    path: Path, need: int = 0, files: int = 0, *, least: int | None = None, kept: str = "are kept"
) -> tuple[str, str]:
    """Why `need` bytes must not be written on this disk, and the error's code; "" when they may.
    `least`: bytes that stay free beside them; None = the reserve of all copies."""
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    if space.f_flag & os.ST_RDONLY or refuses_writes(path):
        return "the file system is read-only", "read_only"
    if least is None:
        least = max(LEAST_FREE, int(space.f_blocks * space.f_frsize * LEAST_SHARE))
    if free - need < least:
        needed = f" and {_size(need)} are needed" if need else ""
        return f"the disk has {_size(free)} free{needed}, {_size(least)} {kept}", "disk_full"
    # 0 where the file system counts no files.
    if space.f_files and space.f_favail < files + LEAST_FILES:
        return f"the file system has room for {space.f_favail} more files only", "disk_full"
    return "", ""


def leave_room(root: Path, what: str, need: int, files: int, *, least: int | None = None) -> None:
    """VaultError where `need` bytes and this number of files must not be written beside the
    sessions."""
    problem, code = lacks_room(root, need, files, least=least)
    if problem:
        raise VaultError(f"cannot {what}: {problem}", code=code)


def why_no_start(session_root: Path, least: int) -> str:
    """Why no session may start on this disk now; "" when it may: a session that cannot write what
    it received loses its keys. `least`: bytes that must be free; 0 = no check."""
    if not least:
        return ""
    try:
        problem, _ = lacks_room(session_root, least=least, kept="must be ([start] disk_free)")
    except FileNotFoundError:
        return ""  # a missing folder is judged by its files
    except OSError as error:
        return f"cannot check the disk of {session_root}: {error.strerror or error}"
    return f"no room in {session_root}: {problem}" if problem else ""


def has_room(root: Path, least: int) -> bool:
    """True if a session that comes from elsewhere could be put there, and start."""
    return os.access(root, os.W_OK) and disk_usage(root).free >= least and not lacks_room(root)[0]


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


TRASH = ".trash"
MANIFEST = "trash.json"
_RETIRED = re.compile(rf"(?P<id>{ID_PATTERN})\.(?P<copy>{NAME_PATTERN})")


@dataclass(frozen=True, slots=True)
class Retired:
    name: str
    path: Path
    at_wall: float
    id: InstanceId
    why: str


def retire(
    root: Path, id: InstanceId, why: str, *, now_wall: float | None = None, follows: bool = True
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
        taken = filter(None, map(_RETIRED.fullmatch, trash.names()))
        name = f"{id}.{next_name((match['copy'] for match in taken), at_wall)}"
        with doing("retire", root / checked):
            top.move(id, name, trash)
        failpoint("retire_moved")
        trash.sync()
        top.sync()
    return Retired(name, root / TRASH / name, at_wall, checked, why)


def list_trash(root: Path) -> list[Retired]:
    """Return the entries that can be restored, newest first."""
    with open_own(root, TRASH, shared=True) as (_, trash):
        matches = filter(None, map(_RETIRED.fullmatch, trash.names()))
        newest_first = sorted(matches, key=lambda match: age_order(match["copy"]), reverse=True)
        return [_describe(trash, match) for match in newest_first]


def restore_trash(root: Path, name: str) -> InstanceId:
    """Move a retired session back to its place; Refused if that is taken."""
    if not (match := _RETIRED.fullmatch(name)):
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
        matches = filter(None, map(_RETIRED.fullmatch, names))
        ours = [match[0] for match in matches if made_at(match["copy"]) < float("inf")]
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
    id, at_wall = parse_instance_id(match["id"]), made_at(match["copy"])
    return Retired(name, trash.path / name, at_wall, id, why)
