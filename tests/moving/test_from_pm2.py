"""Bots that a real pm2 runs become instances with one command, and keep their pairings."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, done, make_agent
from tests.engines.baileys.conftest import whatsapp
from tests.lacking import lacks
from tests.standin.baileys.run import HERE, WhatsApp

__all__ = ["make_agent", "whatsapp"]

BIN = Path(__file__).parents[1] / "standin" / "pm2" / "node_modules" / ".bin"
SLOWER = {"WA_AGENT_HEALTH__INTERVAL": "5"}
ACCOUNT = "5511900000100"


class Pm2:
    """`PM2_HOME` lies in the test's folder, and its daemon ends with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        path = f"{Path(sys.executable).parent}:{BIN}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PM2_HOME": str(home), "PATH": path}

    async def do(self, line: str, **more: str) -> str:
        """A line in a shell."""
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-ec", line),
            env=self.environment | more,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            said, _ = await shell.communicate()
        assert shell.returncode == 0, said.decode()
        return said.decode()

    async def run(self, **app: Any) -> None:
        file = self.home / "bots.json"
        file.write_text(json.dumps({"apps": [app]}))
        await self.do(f"pm2 start {file} && pm2 save")

    async def state(self) -> str:
        return str(json.loads(await self.do("pm2 jlist --silent"))[0]["pm2_env"]["status"])

    async def move(self, agent: RunningAgent) -> str:
        """Gives the command, then the line that it prints; what the command said."""
        said = await done(agent, "import", "pm2", "--config", agent.config)
        (line,) = [line.strip() for line in said.splitlines() if " stop " in line]
        await self.do(line, WA_AGENT_SOCKET=str(agent.state / "api.sock"))
        return said


@pytest.fixture
async def pm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pm2]:
    if shutil.which("node") is None or not (BIN / "pm2").exists():
        lacks("pm2 is not installed (tests/standin/pm2/install does it)")
    (home := tmp_path / "pm2").mkdir()
    monkeypatch.setenv("PM2_HOME", str(home))
    own = Pm2(home)
    yield own
    await own.do("pm2 kill")


async def test_a_bot_of_a_real_pm2_moves_in_and_nobody_scans(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, pm2: Pm2, eventually: Eventually
) -> None:
    (folder := pm2.home.with_name("a shop")).mkdir()
    log = folder / "out.log"
    await pm2.run(
        name="Shop 1",
        script=str(HERE / "bots" / "plain.mjs"),
        cwd=str(folder),
        args=["--shop", "1"],
        env={"WHATSAPP": whatsapp.socket, "SHOW_CODE": "yes"},
        out_file=str(log),
        max_memory_restart="300M",
    )

    def code() -> str:
        printed = re.findall(r"^scan (\S+)$", log.read_text() if log.exists() else "", re.M)
        return printed[0] if printed else ""

    await eventually(lambda: code() != "", within=60)
    await asyncio.to_thread(whatsapp.scan, code(), ACCOUNT)
    await eventually(lambda: "connection open" in log.read_text(), within=60)
    agent = make_agent()
    await agent.start(SLOWER)
    await done(agent, "import", "pm2", "--config", agent.config)
    shown = await agent.show("shop-1")
    assert (shown["enabled"], shown["settings"]["memory_limit"]) == (False, 300 << 20)
    assert await pm2.state() == "online", "pm2 is left alone"
    once = agent.config.read_text()
    await pm2.move(agent)  # a second import finds what the first one made
    assert agent.config.read_text() == once
    await eventually(lambda: agent.status("shop-1"), "CONNECTED", within=90)
    assert await agent.codes("shop-1") == 0
    assert (await agent.show("shop-1"))["account"] == ACCOUNT
    assert (len(whatsapp.devices()), whatsapp.overlaps()) == (1, [])
    await pm2.do("pm2 kill && pm2 resurrect")  # as at the next boot
    assert await pm2.state() == "stopped"


WAITS = """
const shown = (text) => require("node:fs").appendFileSync("told", text + "\\n");
process.stdin.on("end", () => process.exit(3)).resume();
process.on("message", (text) => {
  shown(text);
  if (text === "shutdown") process.exit(0);
});
for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => { shown(name); process.exit(0); });
process.send("ready");
shown(`connected ${process.connected}`);
"""


async def test_a_bot_that_talks_with_pm2_finds_the_same_here(
    make_agent: Callable[..., RunningAgent], pm2: Pm2, eventually: Eventually
) -> None:
    """It waits for pm2's word to end, and ends where its input does."""
    (folder := pm2.home.with_name("bot")).mkdir()
    (script := folder / "bot.cjs").write_text(WAITS)
    app = {"name": "shop", "script": str(script), "cwd": str(folder), "wait_ready": True}
    await pm2.run(**app, shutdown_with_message=True)
    heard, lines = folder / "told", ["connected true", "shutdown"]
    agent = make_agent()
    await agent.start()
    await pm2.move(agent)
    await eventually(lambda: heard.read_text().splitlines(), [*lines, "connected true"])
    await agent.do("POST", "/api/instance/shop/stop")
    await eventually(lambda: heard.read_text().splitlines(), [*lines, *lines])
