"""Find workers without a note, and notes of workers that serve another folder.

An agent that is killed between a fork and its note, or whose disk was full, leaves a worker without
one; until it is gone no other worker can lock the session. A copy of a state folder has the notes
of the workers that run in the original.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest
from agent.host.machine.state_folders import held_locks, log_state
from agent.log import about

log = logging.getLogger(__name__)


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


def session_locks(root: Path) -> dict[Path, InstanceId]:
    """The lock of each folder that is named like an instance."""
    try:
        entries = list(os.scandir(root))
    except OSError:  # not made yet
        return {}
    locks = {}
    for entry in entries:
        with suppress(InvalidRequest):
            locks[root / entry.name / "lock"] = parse_instance_id(entry.name)
    return locks


def lock_holders(locks: Iterable[Path]) -> Mapping[Path, int]:
    """Which process has each of these files locked, as far as it can be seen."""
    wanted: dict[int, tuple[Path, os.stat_result]] = {}
    for path in locks:
        try:
            status = path.stat(follow_symlinks=False)
        except OSError:
            continue
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
