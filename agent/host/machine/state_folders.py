"""Which state folders the agents and workers of this machine use, wherever these lie by now.

The kernel knows it: an agent holds its folder's lock, and a worker that no service manager runs has
its log open there. Other users' processes, and those of other machines, are not seen.
"""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
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
    locked = _locked_inodes()
    for pid in (entry.name for entry in os.scandir("/proc") if entry.name.isdigit()):
        # A worker's own children write elsewhere, or beside their worker.
        log = _LOG.fullmatch(str(_link(f"/proc/{pid}/fd/1")))
        for folder in [Path(log["state"])] if log else _locked_folders(pid, locked.get(pid, ())):
            seen_at = Path(f"/proc/{pid}/root{folder}")
            with suppress(OSError):
                status = seen_at.stat()
                key = (status.st_dev, status.st_ino)
                state = states.setdefault(key, UsedState(folder, seen_at))
                if log is None:
                    state.agent = int(pid)
                elif log["kind"] != "-packs":
                    state.workers.append(InstanceId(log["id"]))
    return list(states.values())


def _locked_inodes() -> dict[str, set[int]]:
    """By the process that has locked them."""
    found: dict[str, set[int]] = {}
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if len(fields) == 8 and fields[1] == "FLOCK":
                found.setdefault(fields[4], set()).add(int(fields[5].rsplit(":", 1)[1]))
    return found


def _locked_folders(pid: str, inodes: Collection[int]) -> Iterator[Path]:
    if inodes:
        with suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                path = _link(descriptor.path)
                # The kernel's device number may be another than stat's (overlays).
                with suppress(OSError):
                    if path.name == LOCK and descriptor.stat().st_ino in inodes:
                        yield path.parent


def _link(path: str) -> Path:
    try:
        return Path(path).readlink()
    except OSError:
        return Path()
