"""A real worker without an agent: started, asked over its link as the agent does, stopped."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.core.model import ConnectionStatus, Instance, InstanceId
from agent.core.words import Claim
from agent.errors import LinkError
from agent.link.client import Link, Listener
from agent.vault.identity import create
from scripts.benches.machine import TOP

WITHIN = 180.0


class Process:
    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def run(
        self, command: Sequence[str], runtime: Path, env: Mapping[str, str], id: InstanceId
    ) -> None:
        """Return once its link is open."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TOP),
            "RUNTIME_DIRECTORY": str(runtime),
            "WA_LOG_LEVEL": "error",
            "MALLOC_ARENA_MAX": "1",
            **env,
        }
        self._process = await asyncio.create_subprocess_exec(*command, env=environment)
        async with asyncio.timeout(WITHIN):
            while self._link is None:
                with suppress(LinkError, OSError):
                    self._link = await self.open_link(runtime / "link.sock", id)
                await asyncio.sleep(0.01)

    async def open_link(self, path: Path, id: InstanceId) -> Link:
        listener = Listener(self._hear, lambda *_: None, lambda _: None)
        return await Link.open(path, id, self.pid, listener)

    def _hear(self, _run: str, claim: Claim) -> None:
        """A claim of the worker."""

    async def stop(self) -> None:
        await self.hang_up()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def hang_up(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None


class LoneWorker(Process):
    """`prefix`: what stands before its command line."""

    def __init__(
        self,
        folder: Path,
        engine: str,
        settings: Mapping[str, object],
        cache: Path,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._root, self._id = folder.parent, InstanceId(folder.name)
        self._runtime, self._cache, self._prefix = folder / "run", cache, prefix
        create(self._root, Instance(self._id, engine, True, dict(settings), time.time()))
        self._runtime.mkdir()
        self._claim = asyncio.Event()
        self.said: Claim | None = None
        """Last claim of this run."""

    @property
    def status(self) -> ConnectionStatus | None:
        return self.said.status if self.said is not None else None

    @property
    def link(self) -> Link:
        assert self._link is not None
        return self._link

    async def start(self) -> None:
        self.said = None
        command = (*self._prefix, sys.executable, "-m", "agent.worker", self._id)
        env = {"WA_SESSION_ROOT": str(self._root), "WA_CACHE_PATH": str(self._cache)}
        await self.run(command, self._runtime, env, self._id)

    def _hear(self, _run: str, claim: Claim) -> None:
        self.said = claim
        self._claim.set()

    async def until_code(self) -> None:
        await self.until(ConnectionStatus.QR_REQUIRED)

    async def until_connected(self) -> None:
        await self.until(ConnectionStatus.CONNECTED)

    async def until(self, wanted: ConnectionStatus) -> None:
        async with asyncio.timeout(WITHIN):
            while self.status is not wanted:
                self._claim.clear()
                await self._claim.wait()
