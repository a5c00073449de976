"""All processes that a program started: they are the worker's, also those that left its group."""

import ctypes
import os
import signal
import time
from contextlib import suppress

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
ROUNDS, PAUSE = 20, 0.02


def adopt_orphans() -> None:
    """Where a process between them ends, its children become this worker's: none gets lost."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_worker() -> None:
    """Between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Of all generations, parents first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - strings will do
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123
                children += map(int, file.read().split())
    return children


def reap(but: int) -> None:
    """Orphans that ended; `but`: the child that somebody waits for."""
    for pid in _children(os.getpid()):
        if pid != but:
            with suppress(ChildProcessError, OSError):
                os.waitpid(pid, os.WNOHANG)


def kill_all(waited: int) -> int:
    """Every process below this worker, which starts nothing else; how many there were. Blocks for
    moments. `waited`: the child that somebody waits for, which is not waited for here."""
    killed: set[int] = set()
    for _ in range(ROUNDS):
        left = _stop_all()
        for pid in left:
            _signal(pid, signal.SIGKILL)
        killed.update(left)
        reap(waited)
        if not left:
            break
        time.sleep(PAUSE)
    return len(killed)


def _stop_all() -> set[int]:
    """One that forks faster than it is killed stands still first, until no new one is found."""
    stopped: set[int] = set()
    for _ in range(ROUNDS):
        found = {pid for pid in descendants(os.getpid()) if _lives(pid)}
        if found <= stopped:
            break
        for pid in found - stopped:
            _signal(pid, signal.SIGSTOP)
        stopped |= found
    return stopped


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
