"""Sessions of the baileys engine that share one Node: their process, and what its end costs."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.core.model import ConnectionStatus
from agent.engines.baileys.pack_client import FILE
from scripts.benches.lone_worker import LoneWorker
from scripts.benches.machine import TOP
from scripts.benches.processes import tree

NAME = "baileys-1"
WITHIN = 60.0


class PackProcess:
    """Started as its unit or the process host starts it, and again when it ends."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TOP),
            "RUNTIME_DIRECTORY": str(folder),
            "WA_SESSION_ROOT": str(folder.parent),
            "WA_CACHE_PATH": str(cache),
            "WA_LOG_LEVEL": "error",
            "MALLOC_ARENA_MAX": "1",
        }
        self._keeping: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def join(self, session: Path) -> None:
        """Let the worker of this instance's folder find it."""
        place = {"pack": NAME, "socket": str(self._folder / "pack.sock")}
        (session / FILE).write_text(json.dumps(place), encoding="utf-8")

    @property
    def pids(self) -> list[int]:
        return [] if self._process is None else list(tree(self._process.pid))

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "pack.sock").unlink(missing_ok=True)  # of a pack that was stopped
        self._keeping = asyncio.create_task(self._keep(), name="pack")
        async with asyncio.timeout(WITHIN):
            while not (self._folder / "pack.sock").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _keep(self) -> None:
        while True:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agent.worker", "--pack", NAME, env=self._env
            )
            await self._process.wait()
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


async def cost_of_a_crash(workers: Sequence[LoneWorker], pids: Callable[[], list[int]]) -> float:
    """Seconds from the kill of their Nodes, shared or not, until all are connected again.

    Each is asked to connect as the agent asks, at once: its own delays and turns come on top.
    """
    nodes = [pid for pid in pids() if "main.mjs" in _line(pid)]
    begun = time.perf_counter()
    for node in nodes:
        os.kill(node, signal.SIGKILL)

    async def come_back(worker: LoneWorker) -> None:
        await worker.until(ConnectionStatus.DISCONNECTED)
        await worker.link.call("connect", timeout=WITHIN)
        await worker.until_connected()

    await asyncio.gather(*map(come_back, workers))
    return time.perf_counter() - begun


def _line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
