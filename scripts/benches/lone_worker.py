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


class LoneWorker:
    """`prefix`: what stands before its command line."""

    def __init__(
        self,
        folder: Path,
        engine: str,
        settings: Mapping[str, object],
        cache: Path,
        prefix: Sequence[str] = (),
    ) -> None:
        self._root, self._id = folder.parent, InstanceId(folder.name)
        self._runtime, self._cache, self._prefix = folder / "run", cache, prefix
        create(self._root, Instance(self._id, engine, True, dict(settings), time.time()))
        self._runtime.mkdir()
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._claim = asyncio.Event()
        self.said: Claim | None = None
        """Last claim of this run."""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def status(self) -> ConnectionStatus | None:
        return self.said.status if self.said is not None else None

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    @property
    def link(self) -> Link:
        assert self._link is not None
        return self._link

    async def start(self) -> None:
        self.said = None
        self._process = await asyncio.create_subprocess_exec(
            *(*self._prefix, sys.executable, "-m", "agent.worker", self._id),
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(TOP),
                "RUNTIME_DIRECTORY": str(self._runtime),
                "WA_SESSION_ROOT": str(self._root),
                "WA_CACHE_PATH": str(self._cache),
                "WA_LOG_LEVEL": "error",
                "MALLOC_ARENA_MAX": "1",
            },
        )
        async with asyncio.timeout(20):
            while self._link is None:
                with suppress(LinkError, OSError):
                    path = self._runtime / "link.sock"
                    self._link = await Link.open(
                        path,
                        self._id,
                        self.pid,
                        Listener(self._hear, lambda *_: None, lambda _: None),
                    )
                await asyncio.sleep(0.01)

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

    async def stop(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
