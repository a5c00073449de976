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


def kill_all(mark: bytes, but: int) -> int:
    """Every process below this worker that has this mark in its environment; how many there were.
    Blocks for moments. `but`: the child that somebody waits for, which is not waited for here."""
    killed: set[int] = set()
    for _ in range(ROUNDS):
        left = [pid for pid in descendants(os.getpid()) if _has_mark(pid, mark)]
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed.update(left)
        reap(but)
        if not left:
            break
        time.sleep(PAUSE)
    return len(killed)


def _has_mark(pid: int, mark: bytes) -> bool:
    """Not of one that is dead already: it has no environment any more."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return mark in file.read()
    except OSError:
        return False
