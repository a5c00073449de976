"""Which state folders the agents and workers of this machine use, wherever these lie by now.

The kernel knows it: an agent holds its folder's lock, and a worker that no service manager runs has
its log open there. Other users' processes, and those of other machines, are not seen.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.model import InstanceId

LOCK = "lock"
_LOG = re.compile(r"(?P<state>/.+)/run(?P<kind>|-packs)/(?P<id>[a-z0-9_-]+)/worker\.log")


@dataclass(slots=True)
class UsedState:
    folder: Path
    """As the processes that use it name it."""
    seen_at: Path
    """The same through such a process, which may have another root."""
    agent: int = 0
    """The process that holds its lock; 0 = none."""
    workers: list[InstanceId] = field(default_factory=list)

    def is_same(self, folder: Path) -> bool:
        try:
            return self.seen_at.samefile(folder)
        except OSError:  # moved or gone meanwhile
            return False


def used_states() -> list[UsedState]:
    """The folders that exist. One that is deleted belongs to none."""
    states: dict[tuple[int, int], UsedState] = {}

    def at(pid: int, folder: Path) -> UsedState | None:
        seen_at = Path(f"/proc/{pid}/root{folder}")
        try:
            status = seen_at.stat()
        except OSError:
            return None
        key = (status.st_dev, status.st_ino)
        return states.setdefault(key, UsedState(folder, seen_at))

    logs = dict(_logs())
    for pid, log in logs.items():
        state = at(pid, Path(log["state"]))
        if state is not None and log["kind"] != "-packs":
            state.workers.append(InstanceId(log["id"]))
    for pid, inode in held_locks():
        if pid in logs or (folder := _locked_folder(pid, inode)) is None:
            continue
        if (state := at(pid, folder)) is not None:
            state.agent = pid
    return list(states.values())


def held_locks() -> Iterator[tuple[int, int]]:
    """Processes and the inodes that they have locked."""
    try:
        text = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK":
            yield int(fields[4]), int(fields[5].rsplit(":", 1)[1])


def _logs() -> Iterator[tuple[int, re.Match[str]]]:
    # A worker's own children write elsewhere, or beside their worker.
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (log := _log_of(int(entry.name))) is not None:
            yield int(entry.name), log


def _log_of(pid: int) -> re.Match[str] | None:
    try:
        return _LOG.fullmatch(os.readlink(f"/proc/{pid}/fd/1"))  # noqa: PTH115
    except OSError:
        return None


def _locked_folder(pid: int, inode: int) -> Path | None:
    try:
        descriptors = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            path = Path(os.readlink(descriptor.path))  # noqa: PTH115
            # The kernel's device number may be another than stat's (overlays).
            if path.name == LOCK and descriptor.stat().st_ino == inode:
                return path.parent
        except OSError:
            continue
    return None
