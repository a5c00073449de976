"""Faults of this machine that keep the agent from working well, with advice. Checks only look, and
each stands alone: one that cannot look says so and hides no other."""

import ctypes
import os
import resource
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.cli.doctor.findings import Finding, note, ok, wrong
from agent.disk import refuses_writes

OLDEST_PYTHON = (3, 11)
FIRST_DAY = 1_735_689_600.0
"""2025: a clock before it was never set."""
_TIME_ERROR = 5


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return wrong(f"Python {version}", "install Python 3.11 or newer")
    return ok(f"Python {version}")


def check_clock(now_wall: float | None = None, state: int | None = None) -> Finding:
    """WhatsApp refuses a client whose clock is far off, and certificates look invalid."""
    now_wall = time.time() if now_wall is None else now_wall
    if now_wall < FIRST_DAY:
        shown = time.strftime("%Y-%m-%d", time.gmtime(now_wall))
        return wrong(f"the clock says {shown}", "set it: timedatectl set-ntp true")
    state = _kernel_clock() if state is None else state
    if state == _TIME_ERROR:
        sentence = "the clock is not synchronized"
        return note(sentence, "run timedatectl set-ntp true, or install chrony")
    return ok("synchronized" if state >= 0 else "set")


def _kernel_clock() -> int:
    """adjtimex without a change: the kernel's view of its clock; -1: it gives none."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return -1


def check_disk(path: Path) -> Finding:
    try:
        space = os.statvfs(path)
    except OSError as error:
        return wrong(f"cannot look at {path}: {error.strerror}", "check that it exists")
    free = space.f_bavail * space.f_frsize
    share = space.f_bavail / space.f_blocks if space.f_blocks else 1.0
    words = f"{free / (1 << 30):.1f} GiB free ({share:.0%}) at {path}"
    advice = "remove unneeded files there; wa-agent trash list shows retired sessions"
    if space.f_flag & os.ST_RDONLY or refuses_writes(path):
        return wrong(f"{path} is read-only", "look at the disk: dmesg; mount it writable")
    if space.f_files and space.f_favail == 0:
        return wrong(f"no free inode at {path}", "remove small files there")
    if free < 64 << 20:
        return wrong(words, advice)
    return note(words, advice) if share < 0.10 else ok(words)


def check_limits(pid: int | None, instances: int) -> Finding:
    """Open files that the agent (or, where none runs, this shell's child) may have."""
    needed = 256 + 4 * instances
    limit = _nofile_of(pid) if pid else None
    whose = "the agent" if limit is not None else "a process started here"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    words = f"{whose} may open {limit} files, {instances} instances need about {needed}"
    if limit < needed:
        return wrong(words, "raise LimitNOFILE= of wa-agent.service, or ulimit -n")
    return ok(words)


def _nofile_of(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Max open files"):
            word = line.split()[3]
            return int(word) if word.isdigit() else 1 << 30
    return None


def check_permissions(state: Path, sessions: Path, api_socket: Path) -> Iterator[Finding]:
    """Only the agent, its workers and root may read sessions."""
    if not state.is_dir():
        advice = "start the agent once, or name it: [agent] state_path"
        yield wrong(f"{state} is not there", advice, check="state")
        return
    bad = [line for path in _private(state, sessions) for line in _open_to_others(path)]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        advice = "remove the right: chmod o-rwx, and find out which program gave it"
        yield wrong(f"open to every user: {', '.join(bad[:5])}{more}", advice, check="state")
    else:
        yield ok(f"{state} is closed to others", check="state")
    yield from _check_socket(api_socket)


def _private(state: Path, sessions: Path) -> Iterator[Path]:
    yield from (state, state / "agent.db", sessions)
    try:
        yield from (Path(entry.path) for entry in os.scandir(sessions))
    except OSError:
        return  # closed to this user or missing: then it is not open to every user


def _open_to_others(path: Path) -> Iterator[str]:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISLNK(mode) and mode & 0o007:
        yield f"{path} ({stat.S_IMODE(mode):04o})"


def _check_socket(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        yield note(f"cannot look at {path}", "run it as root", check="socket")
        return
    except OSError:
        yield note(f"{path} is not there", "it exists while the agent runs", check="socket")
        return
    if not stat.S_ISSOCK(mode):
        yield wrong(f"{path} is no socket", "remove it and restart the agent", check="socket")
    elif mode & 0o002:
        advice = "chmod 660: clients of the socket need no key ([api] trust_socket)"
        yield wrong(f"{path} is open to every user", advice, check="socket")
    else:
        yield ok(f"{path} is closed to others", check="socket")
