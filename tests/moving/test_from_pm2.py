"""Bots that a real pm2 runs become instances with one command, and keep their pairings."""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import load_config
from agent.moving.programs import programs_of
from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.daemon.test_vault import cli
from tests.moving.real_pm2 import Pm2, make_agent, pm2, whatsapp
from tests.standin.baileys.run import HERE, WhatsApp

__all__ = ["make_agent", "pm2", "whatsapp"]

BOTS = 2
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}
HEAD = "# Written by hand.\n"


async def typed(agent: RunningAgent, pm2: Pm2, line: str) -> str:
    """A line that the command printed, in a shell."""
    socket, own = str(agent.state / "api.sock"), str(Path(sys.executable).parent)
    environment = {**pm2.environment, "WA_AGENT_SOCKET": socket}
    environment["PATH"] = f"{own}:{environment['PATH']}"
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-ec", line),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        said, _ = await shell.communicate()
    assert shell.returncode == 0, said.decode()
    return said.decode()


async def test_bots_of_a_real_pm2_move_in_and_nobody_scans(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    pm2: Pm2,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apps, bots = [], pm2.home.with_name("bots")
    for number in range(BOTS):
        (folder := bots / f"shop {number}").mkdir(parents=True)
        apps.append(
            {
                "name": f"Shop {number}",
                "script": str(HERE / "bots" / "plain.mjs"),
                "cwd": str(folder),
                "args": ["--shop", str(number)],
                "env": {"WHATSAPP": whatsapp.socket, "SHOW_CODE": "yes"},
                "out_file": str(folder / "out.log"),
                "max_memory_restart": "300M",
                **({"cron_restart": "0 4 * * *"} if number == 0 else {}),
            }
        )
    await pm2.run(*apps)
    codes = [bots / f"shop {number}" / "out.log" for number in range(BOTS)]

    def code(log: Path) -> str:
        printed = re.findall(r"^scan (\S+)$", log.read_text() if log.exists() else "", re.M)
        return printed[0] if printed else ""

    for number, log in enumerate(codes):
        await eventually(lambda log=log: code(log) != "", within=60)
        await asyncio.to_thread(whatsapp.scan, code(log), f"551190000010{number}")
    for log in codes:
        await eventually(lambda log=log: "connection open" in log.read_text(), within=60)

    await pm2.do("save")
    monkeypatch.setenv("PM2_HOME", str(pm2.home))
    agent = make_agent()
    agent.config.write_text(HEAD + agent.config.read_text())
    before = agent.config.read_text()
    await agent.start(PATIENT | SLOWER)
    status, said = await cli(agent, "import", "pm2", "--dry-run", "--config", agent.config)
    assert (status, agent.config.read_text()) == (0, before), said
    status, said = await cli(agent, "import", "pm2", "--config", agent.config)
    assert status == 0, said
    assert "not taken over: restarts by the clock" in said
    assert agent.config.read_text().startswith(before.rstrip())
    assert len(programs_of(load_config(agent.config, {}))) == BOTS
    for number in range(BOTS):
        shown = await agent.show(f"shop-{number}")
        assert (shown["enabled"], shown["settings"]["memory_limit"]) == (False, 300 << 20)
    assert set((await pm2.states()).values()) == {"online"}, "pm2 is left alone"

    # Once more, it finds what it made.
    again = agent.config.read_text()
    status, second = await cli(agent, "import", "pm2", "--config", agent.config)
    assert (status, agent.config.read_text()) == (0, again), second

    moves = [line.strip() for line in said.splitlines() if " stop " in line]
    assert len(moves) == BOTS
    for move in moves:
        await typed(agent, pm2, move)
    for number in range(BOTS):
        await eventually(lambda id=f"shop-{number}": agent.status(id), "CONNECTED", within=90)
        assert await agent.codes(f"shop-{number}") == 0
        assert (await agent.show(f"shop-{number}"))["account"] == f"551190000010{number}"
    assert set((await pm2.states()).values()) == {"stopped"}
    assert (len(whatsapp.devices()), whatsapp.overlaps()) == (BOTS, [])

    # At the next boot pm2 starts none of them again.
    await pm2.do("kill")
    await pm2.do("resurrect")
    assert set((await pm2.states()).values()) == {"stopped"}


WAITS = """
const shown = (text) => require("node:fs").appendFileSync("told", text + "\\n");
process.stdin.on("end", () => process.exit(3)).resume();
process.on("message", (text) => {
  shown(text);
  if (text === "shutdown") process.exit(0);
});
process.on("SIGINT", () => { shown("SIGINT"); process.exit(0); });
process.on("SIGTERM", () => { shown("SIGTERM"); process.exit(0); });
process.send("ready");
shown(`connected ${process.connected}`);
"""


async def test_a_bot_that_talks_with_pm2_finds_the_same_here(
    make_agent: Callable[..., RunningAgent],
    pm2: Pm2,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for pm2's word to end, says that it is ready, and ends where its input does."""
    (folder := pm2.home.with_name("bot")).mkdir()
    (script := folder / "bot.cjs").write_text(WAITS)
    app = {"name": "shop", "script": str(script), "cwd": str(folder), "wait_ready": True}
    await pm2.run({**app, "shutdown_with_message": True})
    heard = folder / "told"
    assert heard.read_text() == "connected true\n"
    await pm2.do("save")
    monkeypatch.setenv("PM2_HOME", str(pm2.home))
    agent = make_agent()
    await agent.start(PATIENT)
    status, said = await cli(agent, "import", "pm2", "--config", agent.config)
    assert status == 0, said
    (move,) = [line.strip() for line in said.splitlines() if " stop " in line]
    await typed(agent, pm2, move)
    lines = ["connected true", "shutdown"]
    await eventually(lambda: heard.read_text().splitlines(), [*lines, "connected true"])

    async def log() -> str:
        return (await cli(agent, "logs", "shop"))[1]

    await eventually(log, within=30)
    assert 'says that it is ready (process.send("ready"))' in await log()
    await agent.do("POST", "/api/instance/shop/stop")
    await eventually(lambda: heard.read_text().splitlines(), [*lines, *lines])
    assert "program_ended" not in await log()
