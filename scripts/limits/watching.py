"""What the agent and one worker use while something is done, and how long the agent is silent."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon.conftest import RunningAgent

EVERY = 0.02
"""Seconds between two looks."""


@dataclass(slots=True)
class Figures:
    """Of one step. Seconds and MiB."""

    step: str
    seconds: float = 0.0
    agent: float = 0.0
    """The most that the agent had resident."""
    worker: float = 0.0
    stall: float = 0.0
    """The longest that the agent took for /healthz."""
    note: str = ""

    def row(self) -> str:
        cells = (f"{self.seconds:.2f}", f"{self.agent:.1f}", f"{self.worker:.1f}")
        return f"| {self.step} | {' | '.join(cells)} | {self.stall * 1000:.0f} | {self.note} |"


HEAD = (
    "| step | s | agent, MiB at most | worker, MiB at most | longest answer of /healthz, ms | |\n"
    "|---|---:|---:|---:|---:|---|"
)


def resident(pid: int) -> float:
    """MiB; 0 = it is gone."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * 4096 / (1 << 20)
    return 0.0


class Watch:
    """Looks at one agent, and at the worker of its session `id`."""

    def __init__(self, agent: RunningAgent, id: str) -> None:
        self._agent, self._id = agent, id
        self.steps: list[Figures] = []

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Figures]:
        found = Figures(name)
        worker = await self._agent.pid(self._id)
        tasks = [
            asyncio.create_task(self._memory(found, worker), name="memory"),
            asyncio.create_task(self._stalls(found), name="stalls"),
        ]
        begun = time.perf_counter()
        try:
            yield found
        finally:
            found.seconds = time.perf_counter() - begun
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.steps.append(found)
        print(found.row(), file=sys.stderr, flush=True)

    async def _memory(self, found: Figures, worker: int) -> None:
        while True:
            if (process := self._agent.process) is not None:
                found.agent = max(found.agent, resident(process.pid))
            found.worker = max(found.worker, resident(worker))
            await asyncio.sleep(EVERY)

    async def _stalls(self, found: Figures) -> None:
        connector = aiohttp.UnixConnector(str(self._agent.state / "api.sock"))
        async with aiohttp.ClientSession(connector=connector) as client:
            while True:
                begun = time.perf_counter()
                with suppress(aiohttp.ClientError, OSError):
                    async with client.get("http://localhost/healthz") as answer:
                        await answer.read()
                found.stall = max(found.stall, time.perf_counter() - begun)
                await asyncio.sleep(EVERY)

    def table(self) -> str:
        return "\n".join([HEAD, *(each.row() for each in self.steps)])


async def timed(agent: RunningAgent, path: str, wanted: int = 200) -> tuple[float, Any]:
    """Seconds, and the answer."""
    begun = time.perf_counter()
    status, answer = await agent.ask("GET", path)
    if status != wanted:
        raise AssertionError(f"GET {path}: {status} {answer}")
    return time.perf_counter() - begun, answer
