"""Find workers that nobody knows: they hold a session's lock but left no note.

An agent that is killed between a fork and its note, or whose disk was full, leaves one.
Until it is gone no other worker can have the session.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def lock_holders(locks: Iterable[Path]) -> Mapping[Path, int]:
    """Which process holds each of these files locked, where one does and we can see it."""
    wanted: dict[int, tuple[Path, os.stat_result]] = {}
    for path in locks:
        try:
            found = path.stat(follow_symlinks=False)
        except OSError:
            continue
        wanted[found.st_ino] = (path, found)
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
            found = descriptor.stat()
        except OSError:
            continue
        if os.path.samestat(found, file):
            return True
    return False
