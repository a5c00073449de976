"""Sessions of the baileys engine in the worker of one pack, and what the end of its Node costs."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.core.model import ConnectionStatus, InstanceId
from agent.errors import LinkError
from agent.link.client import Link, Listener
from scripts.benches.lone_worker import LoneWorker
from scripts.benches.machine import TOP
from scripts.benches.processes import tree

WITHIN = 180.0


class PackProcess:
    """Started as its unit or the process host starts it."""

    def __init__(self, root: Path, cache: Path) -> None:
        """`root`: the folder of its sessions."""
        self._name = InstanceId("baileys-1")
        self._folder = root / "run-packs" / self._name
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TOP),
            "RUNTIME_DIRECTORY": str(self._folder),
            "WA_SESSION_ROOT": str(self._folder.parent),
            "WA_MEMBERS_ROOT": str(root),
            "WA_CACHE_PATH": str(cache),
            "WA_LOG_LEVEL": "error",
            "MALLOC_ARENA_MAX": "1",
        }
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def pids(self) -> list[int]:
        return [] if self._process is None else list(tree(self._process.pid))

    async def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent.worker", "--pack", self._name, env=self._env
        )
        async with asyncio.timeout(WITHIN):
            while self._link is None:
                with suppress(LinkError):
                    self._link = await self.open_link(self._folder / "link.sock", self._name)
                await asyncio.sleep(0.01)

    async def open_link(
        self, path: Path, id: InstanceId, hear: Callable[..., None] = lambda *_: None
    ) -> Link:
        listener = Listener(hear, lambda *_: None, lambda _why: None)
        return await Link.open(path, id, self.pid, listener)

    def link_path(self, id: InstanceId) -> Path:
        return self._folder / "members" / id / "link.sock"

    async def call(self, do: str, id: InstanceId) -> None:
        assert self._link is not None
        await self._link.call(do, {"id": id, "deadline": WITHIN}, timeout=WITHIN)

    async def stop(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


class Member(LoneWorker):
    """A session that the worker of a pack holds."""

    def __init__(
        self, folder: Path, settings: Mapping[str, object], cache: Path, pack: PackProcess
    ) -> None:
        super().__init__(folder, "baileys", settings, cache)
        self._pack = pack
        self._held = False

    @property
    def pid(self) -> int:
        return self._pack.pid

    @property
    def ended(self) -> bool:
        return not self._held

    async def start(self) -> None:
        self.said = None
        await self._pack.call("hold", self._id)
        self._held = True
        path = self._pack.link_path(self._id)
        self._link = await self._pack.open_link(path, self._id, self._hear)

    async def stop(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._held:
            self._held = False
            await self._pack.call("release", self._id)


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
