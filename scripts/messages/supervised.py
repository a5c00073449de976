"""A program that is begun again whenever it ends, as a supervisor does it."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

AGAIN_AFTER = 0.2


class Supervised:
    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._command, self._log = [str(word) for word in command], log
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.starts = 0

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._log.name)

    @property
    def pids(self) -> list[int]:
        running = self._process is not None and self._process.returncode is None
        return [self._process.pid] if self._process is not None and running else []

    async def _run(self) -> None:
        while True:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            self.starts += 1
            await self._process.wait()
            await asyncio.sleep(AGAIN_AFTER)

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
