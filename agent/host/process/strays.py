"""Find workers without a note, and notes of workers that serve another folder.

An agent that is killed between a fork and its note, or has no room or no descriptor for it, leaves
a worker without one; until it is gone no other worker can lock the session. A copy of a state
folder has the notes of the workers that run in the original.
"""

import logging
import os
from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest
from agent.host.machine.state_folders import LOCK, held_locks, log_state
from agent.host.process.child import Child
from agent.host.process.run_file import read_note
from agent.log import about

log = logging.getLogger(__name__)

PACKS = "run-packs"
"""Beside the run folder of sessions' own workers: that of packs."""


def serves_elsewhere(id: InstanceId, pid: int, run_dir: Path) -> bool:
    """Whether the worker that a note here names has its log in another state folder; False where
    there is no telling, as when its log was deleted."""
    state = log_state(pid)
    if state is None:
        return False
    log_dir = Path(f"/proc/{pid}/root{state}") / run_dir.name
    try:
        if log_dir.samefile(run_dir):
            return False
    except OSError:
        return False
    words = "process %s, which the run file of %s names, serves %s: the agent leaves it"
    log.warning(words, pid, id, state, extra=about(id))
    return True


def works_elsewhere(id: InstanceId, pid: int, sessions: str, root: Path) -> bool:
    """Whether the sessions lie somewhere else by now than where its worker was told that they are,
    as after a state folder was renamed: it neither reads nor keeps anything there. `sessions`: ""
    = nobody knows."""
    try:
        if sessions in ("", str(root.absolute())) or Path(sessions).samefile(root):
            return False
    except OSError:
        pass
    words = "process %s looks for the session %s in %s, and it is in %s: the agent replaces it"
    log.warning(words, pid, id, sessions, root, extra=about(id))
    return True


class Strays:
    """Their run has no name, so their claims cannot be believed: others start in their place."""

    def __init__(self, root: Path, own: Container[int], run_dir: Path) -> None:
        self._root, self._own, self._run_dir = root, own, run_dir
        self._suspected: set[InstanceId] = set()

    def suspect(self, instance: InstanceId) -> None:
        """Its last run found the lock held, or could not be watched."""
        self._suspected.add(instance)

    def find(self) -> Mapping[InstanceId, Child]:
        return self._among(session_locks(self._root))

    def in_the_way_of(self, instance: InstanceId) -> Collection[Child]:
        if instance not in self._suspected:
            return ()
        self._suspected.discard(instance)
        return self._among({self._root / instance / LOCK: instance}).values()

    def _packs(self) -> Collection[int]:
        """Processes that hold the locks of several sessions; another host keeps them."""
        notes = [read_note(folder) for folder in _folders(self._run_dir.with_name(PACKS))]
        return {note.pid for note in notes if note is not None}

    def _among(self, locks: Mapping[Path, InstanceId]) -> Mapping[InstanceId, Child]:
        strays, packs = {}, self._packs()
        for path, pid in lock_holders(locks).items():
            if pid in self._own or pid == os.getpid() or pid in packs:
                continue
            if (child := Child.stray(pid)) is not None:
                words = "process %s holds %s without a run file: the agent replaces it"
                log.warning(words, pid, locks[path], extra=about(locks[path]))
                strays[locks[path]] = child
        return strays


def _folders(path: Path) -> list[Path]:
    with suppress(OSError):
        return list(path.iterdir())
    return []


def session_locks(root: Path) -> dict[Path, InstanceId]:
    """The lock of each folder that is named like an instance."""
    try:
        entries = list(os.scandir(root))
    except OSError:  # not made yet
        return {}
    locks = {}
    for entry in entries:
        with suppress(InvalidRequest):
            locks[root / entry.name / LOCK] = parse_instance_id(entry.name)
    return locks


def lock_holders(locks: Iterable[Path]) -> Mapping[Path, int]:
    """Which process has each of these files locked, or its folder, as far as it can be seen."""
    wanted: dict[int, tuple[Path, os.stat_result]] = {}
    for path in locks:
        for each in (path.parent, path):
            with suppress(OSError):
                status = each.stat(follow_symlinks=False)
                wanted[status.st_ino] = (path, status)
    holders = {}
    for pid, inode in held_locks():
        # The kernel's device number may be another than stat's (overlays): ask the process.
        if inode in wanted and _has_open(pid, wanted[inode][1]):
            holders[wanted[inode][0]] = pid
    return holders


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        descriptors = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            status = descriptor.stat()
        except OSError:
            continue
        if os.path.samestat(status, file):
            return True
    return False
