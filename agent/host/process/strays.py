"""Find workers without a note, by the session's lock or the log that they have open.

An agent that is killed between a fork and its note, or whose disk was full, leaves one; until it is
gone no other worker can lock the session. Workers of a state folder that was moved away go on in
it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest

_LOG = re.compile(r"(?P<state>/.+)/run(?:-backends)?/(?P<id>[a-z0-9_-]+)/worker\.log")


def running_in_any_state() -> Mapping[Path, list[InstanceId]]:
    """State folders, where they lie now, and the workers that write their logs in them."""
    running: dict[Path, list[InstanceId]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            match = _LOG.fullmatch(os.readlink(f"/proc/{entry.name}/fd/1"))  # noqa: PTH115
        except OSError:
            continue
        # The warm process and a worker's own children write elsewhere, or beside their worker.
        if match and InstanceId(match["id"]) not in running.get(Path(match["state"]), []):
            running.setdefault(Path(match["state"]), []).append(InstanceId(match["id"]))
    return running


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
    for pid, inode in _held():
        # The kernel's device number may be another than stat's (overlays): ask the process.
        if inode in wanted and _has_open(pid, wanted[inode][1]):
            holders[wanted[inode][0]] = pid
    return holders


def _held() -> Iterable[tuple[int, int]]:
    try:
        text = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK":
            yield int(fields[4]), int(fields[5].rsplit(":", 1)[1])


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
