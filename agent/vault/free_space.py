"""Whether a disk has room for what the agent is about to write."""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.files import refuses_writes

LEAST_FREE = 200 << 20
LEAST_SHARE = 0.02
LEAST_FILES = 100


@dataclass(frozen=True, slots=True)
class Room:
    """The room on a file system for this user."""

    free: int
    total: int
    files_free: int
    files_total: int
    """0 where the file system counts no files."""
    read_only: bool

    def problem(
        self, need: int = 0, files: int = 0, *, least: int | None = None, kept: str = "are kept"
    ) -> str:
        """Why `need` bytes must not be written; "" when they may. `least`: bytes that stay free
        beside them; None = the reserve of all copies."""
        if self.read_only:
            return "the file system is read-only"
        if least is None:
            least = max(LEAST_FREE, int(self.total * LEAST_SHARE))
        if self.free - need < least:
            needed = f" and {_size(need)} are needed" if need else ""
            return f"the disk has {_size(self.free)} free{needed}, {_size(least)} {kept}"
        if self.files_total and self.files_free < files + LEAST_FILES:
            return f"the file system has room for {self.files_free} more files only"
        return ""


def look_for_room(path: Path) -> Room:
    space = os.statvfs(path)
    return Room(
        free=space.f_bavail * space.f_frsize,
        total=space.f_blocks * space.f_frsize,
        files_free=space.f_favail,
        files_total=space.f_files,
        read_only=bool(space.f_flag & os.ST_RDONLY) or refuses_writes(path),
    )


def why_no_start(session_root: Path, least: int) -> str:
    """Why no session may start on this disk now; "" when it may: a session that cannot write what
    it received loses its keys. `least`: bytes that must be free; 0 = no check."""
    if not least:
        return ""
    try:
        room = look_for_room(session_root)
        problem = room.problem(least=least, kept="must be ([start] disk_free)")
    except FileNotFoundError:
        return ""  # a missing folder is judged by its files
    except OSError as error:
        return f"cannot check the disk of {session_root}: {error.strerror or error}"
    return problem and f"no room in {session_root}: {problem}"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
