"""What workers leave behind, and which of them use too much memory. Blocking looks at /proc."""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

from agent.host.machine.proc_table import all_processes, proportional_bytes, variables_of
from agent.host.machine.process_tree import find_trees

ROUNDS, PAUSE = 10, 0.01
"""A killed process takes a moment to go, and may have forked just before."""

Left = tuple[int, str]
"""An ended worker: its pid led its group and its session (0: it is another process by now); its
run is in its children's environment."""


class Sweep:
    """Workers that end together share one look at the processes of the machine."""

    def __init__(self) -> None:
        self._asked: set[Left] = set()
        self._looking = asyncio.Lock()

    async def kill(self, leader: int, run: str, living: Collection[int] = ()) -> int:
        """Return when none is left, and how many there were. `living`: leaders of other workers;
        none of their processes is looked at."""
        if leader > 1:  # 0 would be this process's own group
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        self._asked.add((leader, run))
        async with self._looking:
            asked, self._asked = self._asked, set()
            return await asyncio.to_thread(_kill_all, asked, set(living)) if asked else 0


def _kill_all(asked: set[Left], living: set[int]) -> int:
    leaders, runs = ({each[at] for each in asked} - {0, ""} for at in (0, 1))
    spared, killed = {0, os.getsid(0), *living} - leaders, set()
    for turn in range(1, ROUNDS + 1):
        left = [
            process.pid
            for process in all_processes()
            if not process.zombie
            and process.session not in spared
            and (
                process.session in leaders
                or variables_of(process.pid).get("INVOCATION_ID", "") in runs
            )
        ]
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= set(left)
        time.sleep(turn * PAUSE)
    return len(killed)


def over_limit(limits: Mapping[int, int]) -> dict[int, int]:
    """Leader → bytes of its whole tree, for those above their limit."""
    over = {}
    for leader, tree in find_trees(frozenset(limits)).items():
        # Resident memory counts shared pages for each process, so it is an upper bound.
        if sum(its.rss_bytes for its in tree) > limits[leader]:
            used = sum(proportional_bytes(its.pid) for its in tree)
            if used > limits[leader]:
                over[leader] = used
    return over
