"""`scripts/chaos baileys --nodes`: the Nodes of all sessions of one agent are killed at once, as an
upgrade or a machine without memory does it."""

import asyncio
import os
import shutil
import signal
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from scripts.benches.paired import PairedSessions
from scripts.benches.processes import tree

SETTLE, BACK = 20.0, 180.0
"""Seconds between two kills, and until all must be back."""
GOAL = 5.0
"""Seconds until all should be."""


async def kill_all_nodes(paired: PairedSessions, rounds: int) -> list[float]:
    """Of each round, seconds until all are connected again."""
    took = []
    async with AsyncExitStack() as stack:
        await paired.begin(stack)
        for _ in range(rounds):
            await asyncio.sleep(SETTLE)
            begun = time.time()
            for session in paired.each:
                _worker, *nodes = tree(await paired.agent.pid(session.id))
                for pid in nodes:
                    os.kill(pid, signal.SIGKILL)
                session.kills.append((begun, float("inf")))
            async with asyncio.timeout(BACK):
                while not all(paired.came_back(each, begun) for each in paired.each):
                    await asyncio.sleep(0.1)
                    await paired.look()
            took.append(max(each.kills[-1][1] for each in paired.each) - begun)
    return took


def kill_together(root: Path, sessions: int, rounds: int) -> int:
    took = asyncio.run(kill_all_nodes(PairedSessions(root, sessions), rounds))
    shown = ", ".join(f"{seconds:.1f}" for seconds in took)
    met = statistics.median(took) <= GOAL
    print(f"{sessions} Nodes killed at once → all sessions connected (s): {shown}")
    print(f"goal {'met' if met else 'not met'}: {GOAL:g} s, load {os.getloadavg()[0]:.1f}")
    shutil.rmtree(root)
    return 0 if met else 1
