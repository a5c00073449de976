"""Sessions of the baileys engine in the worker of one pack, and what the end of its Node costs."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.core.model import ConnectionStatus, InstanceId
from agent.engines.program.process import descendants
from scripts.benches.lone_worker import WITHIN, LoneWorker, Process


class PackProcess(Process):
    """Started as its unit or the process host starts it."""

    def __init__(self, root: Path, cache: Path) -> None:
        """`root`: the folder of its sessions."""
        super().__init__()
        self._name = InstanceId("baileys-1")
        self._folder = root / "run-packs" / self._name
        self._env = {
            "WA_SESSION_ROOT": str(self._folder.parent),
            "WA_MEMBERS_ROOT": str(root),
            "WA_CACHE_PATH": str(cache),
        }

    @property
    def pids(self) -> list[int]:
        return [self.pid, *descendants(self.pid)] if self.pid else []

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "agent.worker", "--pack", self._name)
        await self.run(command, self._folder, self._env, self._name)

    def link_path(self, id: InstanceId) -> Path:
        return self._folder / "members" / id / "link.sock"

    async def call(self, do: str, id: InstanceId) -> None:
        assert self._link is not None
        await self._link.call(do, {"id": id, "deadline": WITHIN}, timeout=WITHIN)


class Member(LoneWorker):
    """A session that the worker of a pack holds."""

    def __init__(
        self, folder: Path, settings: Mapping[str, object], cache: Path, pack: PackProcess
    ) -> None:
        super().__init__(folder, "baileys", settings, cache)
        self._pack = pack

    @property
    def pid(self) -> int:
        return self._pack.pid

    async def start(self) -> None:
        self.said = None
        await self._pack.call("hold", self._id)
        self._link = await self.open_link(self._pack.link_path(self._id), self._id)

    async def stop(self) -> None:
        if self._link is not None:
            await self.hang_up()
            await self._pack.call("release", self._id)


async def cost_of_a_crash(workers: Sequence[LoneWorker], pids: list[int]) -> float:
    """Seconds from the kill of their Nodes, shared or not, until all are connected again.

    Each is asked to connect as the agent asks, at once: its own delays and turns come on top.
    """
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pids}
    begun = time.perf_counter()
    for node in (pid for pid, line in lines.items() if "main.mjs" in line):
        os.kill(node, signal.SIGKILL)

    async def come_back(worker: LoneWorker) -> None:
        await worker.until(ConnectionStatus.DISCONNECTED)
        await worker.link.call("connect", timeout=WITHIN)
        await worker.until_connected()

    await asyncio.gather(*map(come_back, workers))
    return time.perf_counter() - begun
