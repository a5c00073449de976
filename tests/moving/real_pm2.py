"""A real pm2 of the test's own, and the bots that it runs."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import make_agent
from tests.engines.baileys.conftest import whatsapp
from tests.lacking import lacks

__all__ = ["make_agent", "whatsapp"]

BIN = Path(__file__).parents[1] / "standin" / "pm2" / "node_modules" / ".bin"


class Pm2:
    """`PM2_HOME` lies in the test's folder, and its daemon ends with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "PM2_HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    async def do(self, *words: str) -> str:
        program = await asyncio.create_subprocess_exec(
            *("pm2", *words),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            said, _ = await program.communicate()
        assert program.returncode == 0, said.decode()
        return said.decode()

    async def run(self, *apps: dict[str, Any]) -> None:
        file = self.home / "bots.json"
        file.write_text(json.dumps({"apps": apps}))
        await self.do("start", str(file))

    async def states(self) -> dict[str, str]:
        rows = json.loads(await self.do("jlist", "--silent"))
        return {row["name"]: row["pm2_env"]["status"] for row in rows}


@pytest.fixture
async def pm2(tmp_path: Path) -> AsyncIterator[Pm2]:
    if shutil.which("node") is None or not (BIN / "pm2").exists():
        lacks("pm2 is not installed (tests/standin/pm2/install does it)")
    home = tmp_path / "pm2"
    home.mkdir()
    own = Pm2(home)
    yield own
    await own.do("kill")
