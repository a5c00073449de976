"""A worker of a program, played with as a host and an agent do."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import ConnectionStatus
from tests.worker.conftest import Bench

BOT = Path(__file__).with_name("bot.py")


class ProgramBench(Bench):
    """The bot of the tests as an instance."""

    def run(self, *arguments: str, **declared: Any) -> subprocess.Popen[bytes]:
        row = {"name": "bot", "command": [sys.executable, str(BOT), *arguments], **declared}
        self.identity(engine="program", settings={"program": "bot"}, of_rooms={"program": row})
        return self.start(identity=False)

    async def is_now(self, status: str, reason: str = "") -> Any:
        return await self.status(ConnectionStatus(status), reason)

    async def order(self, line: str) -> None:
        """To the bot that tells."""
        orders = self.folder / "orders"
        await self.until(orders.exists)
        with orders.open("w") as pipe:
            pipe.write(f"{line}\n")

    async def tell(self, event: str, **more: Any) -> None:
        await self.order(f"tell {json.dumps({'event': event, **more})}")

    async def file(self, name: str, found: Callable[[str], bool] = bool) -> str:
        path = self.folder / name
        await self.until(lambda: path.exists() and found(path.read_text()))
        return path.read_text()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await self.ended()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProgramBench]:
    bench = ProgramBench(tmp_path, "shop")
    yield bench
    await bench.clean_up()
