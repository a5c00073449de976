"""Measures processes, and ends those that a bench began: by pid, told by the bench's own folder."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agent.host.machine import all_processes, read_process, variables_of

MIB = 1 << 20


def launch(
    command: Sequence[str | Path], env: Mapping[str, str], place: Path, log: str
) -> "subprocess.Popen[bytes]":
    """In a session of its own, so that a Ctrl+C here is ours to pass on in order."""
    with (place / log).open("ab") as out:
        return subprocess.Popen(
            [str(word) for word in command],
            env=dict(env),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def memory(pid: int) -> dict[str, int]:
    """Bytes by the kernel's names (Pss, Private_Clean, ...); empty when it is gone."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, _, rest = line.partition(":")
            if rest.endswith("kB"):
                found[name] = int(rest.split()[0]) * 1024
    return found


def uss(pid: int) -> float:
    """MiB that would be free if it alone ended."""
    found = memory(pid)
    return (found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)) / MIB


def pss(pid: int) -> float:
    """MiB, shared pages divided among their users."""
    return memory(pid).get("Pss", 0) / MIB


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time so far, to the nanosecond, of processes that still live."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            # The kernel's clock of another process, as clock_getcpuclockid() makes it.
            total += time.clock_gettime((~pid << 3) | 2)
    return total


async def spent_in(pids: Sequence[int], seconds: float) -> float:
    """Processor seconds in a minute."""
    used, begun = cpu(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    return (cpu(pids) - used) * 60 / (time.perf_counter() - begun)


def children(parents: Iterable[int]) -> set[int]:
    found: set[int] = set()
    for pid in parents:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
            found.update(map(int, text.split()))
    return found


async def new_child(parents: Iterable[int], before: set[int]) -> int:
    """The first child that was not there before; looked for twice in a millisecond."""
    known, deadline = list(parents), time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if new := children(known) - before:
            return min(new)
        await asyncio.sleep(0.0005)
    raise TimeoutError("cannot see a new process: none in 20 s")


async def gone(pids: Iterable[int], within: float) -> None:
    """Wait until none of them is left but zombies that others must reap."""
    left, deadline = set(pids), time.monotonic() + within
    while left := {pid for pid in left if _lives(pid)}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot wait longer: {len(left)} processes live after {within:g} s")
        await asyncio.sleep(0.002)


def _lives(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and not process.zombie


def kill_marked(mark: str) -> int:
    """The last resort at the end of a run: kill each process with the mark (a path that only this
    run uses) in its environment; how many were still there."""
    killed = 0
    for _ in range(20):
        others = (it.pid for it in all_processes() if not it.zombie and it.pid != os.getpid())
        left = [pid for pid in others if any(mark in it for it in variables_of(pid).values())]
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += len(left)
        time.sleep(0.05)
    return killed
