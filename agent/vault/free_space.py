"""Is there room on the disk for what we are about to do? Looks only."""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.disk import refuses_writes

LEAST_FREE = 200 << 20
LEAST_SHARE = 0.02
LEAST_FILES = 100


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system has left for us."""

    free: int
    total: int
    files_free: int
    files_total: int
    """0 where the file system counts no files."""
    read_only: bool

    def problem(self, need: int = 0, files: int = 0) -> str:
        """Why nothing should be begun that writes `need` bytes; "" when it may."""
        if self.read_only:
            return "the file system is read-only"
        left = self.free - need
        if left < LEAST_FREE:
            return (
                f"the disk has {_size(self.free)} free{_after(need)}; {_size(LEAST_FREE)} are kept"
            )
        if left < self.total * LEAST_SHARE:
            share = 100.0 * self.free / self.total
            return f"the disk is {share:.1f} % free{_after(need)}; {LEAST_SHARE:.0%} are kept"
        if self.files_total and self.files_free < files + LEAST_FILES:
            return f"the file system has room for {self.files_free} more files only"
        return ""


def look_for_room(path: Path) -> Room:
    """Of the file system that holds `path`."""
    found = os.statvfs(path)
    return Room(
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        files_free=found.f_favail,
        files_total=found.f_files,
        read_only=bool(found.f_flag & os.ST_RDONLY) or refuses_writes(path),
    )


def why_no_start(session_root: Path, least: int) -> str:
    """The reason why no session should be started on this disk now; "" when there is none.

    A session that cannot write what it received loses its keys, which is worse than waiting.
    `least`: bytes that must be free; 0 = whatever is.
    """
    if not least:
        return ""
    try:
        room = look_for_room(session_root)
    except FileNotFoundError:
        return ""  # a missing folder is judged by its files
    except OSError as error:
        return f"cannot check the disk of {session_root}: {error.strerror or error}"
    if room.read_only:
        return "the file system of the sessions is read-only"
    if room.free < least:
        needed = f"{_size(least)} must be ([start] disk_free)"
        return f"the disk of the sessions has {_size(room.free)} free, {needed}"
    if room.files_total and room.files_free < LEAST_FILES:
        return f"the file system of the sessions has room for {room.files_free} more files only"
    return ""


def _after(need: int) -> str:
    return f" and {_size(need)} are needed" if need else ""


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
