"""Kill the processes that a worker left: its process group, its session, those of its run."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.host.machine.proc_table import Process, all_processes, variables_of

# A killed process takes a moment to go, and may have forked just before.
ROUNDS = 10
PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Remains:
    """An ended worker: its pid led its session; its run is in its children's environment."""

    leader: int
    """0: unknown, or another process by now."""
    run: str
    since: int = 0
    """When it was started, in ticks since the boot: older processes are none of its helpers."""


class Sweep:
    """Workers that end together share one look at the processes of the machine."""

    def __init__(self, living: Callable[[], Collection[int]]) -> None:
        """`living`: the pids of workers that are well; none of their processes is looked at."""
        self._living = living
        self._asked: dict[Remains, asyncio.Future[int]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def kill_remains(self, remains: Remains) -> int:
        """How many had to be killed; returns when none of them is left."""
        kill_group(remains.leader)
        if remains not in self._asked:
            self._asked[remains] = asyncio.get_running_loop().create_future()
        answer = self._asked[remains]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="sweep")
        return await asyncio.shield(answer)

    async def _look(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            killed = await asyncio.to_thread(_kill_all, list(asked), set(self._living()))
            for remains, answer in asked.items():
                if not answer.done():
                    answer.set_result(killed.get(remains, 0))


def kill_group(leader: int) -> None:
    if leader <= 1:  # 0 would be this process's own group
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _kill_all(all_remains: list[Remains], living: set[int]) -> dict[Remains, int]:
    killed: dict[Remains, int] = {}
    for turn in range(1, ROUNDS + 1):
        remaining = _find(all_remains, living)
        if not remaining:
            break
        for process, remains in remaining:
            killed[remains] = killed.get(remains, 0) + 1
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(turn * PAUSE)
    return killed


def _find(all_remains: list[Remains], living: set[int]) -> list[tuple[Process, Remains]]:
    leaders = {remains.leader: remains for remains in all_remains if remains.leader > 1}
    runs = {remains.run: remains for remains in all_remains if remains.run}
    first = min(remains.since for remains in all_remains)
    others = living | {0, os.getsid(0)}
    remaining = []
    for process in all_processes(but=living):
        if process.zombie or process.start_ticks < first or process.session in others:
            continue
        remains = leaders.get(process.session) or runs.get(
            variables_of(process.pid).get("INVOCATION_ID", "")
        )
        if remains is not None and process.pid != remains.leader:
            remaining.append((process, remains))
    return remaining
