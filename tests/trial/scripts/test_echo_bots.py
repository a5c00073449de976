"""The echo bots of scripts/examples, and the path on which README.md leads a newcomer to one."""

import asyncio
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.lacking import lacks
from tests.ports import free_port
from tests.trial.scripts.test_run_script import GREETING, start

__all__ = ["start"]

TOP = Path(__file__).parents[3]
EXAMPLES = TOP / "scripts/examples"
ANN = "5511999990000"
COUNT = 40


def program(name: str) -> list[str]:
    if name.endswith(".mjs"):
        return [shutil.which("node") or lacks("node"), str(EXAMPLES / name)]
    return [sys.executable, str(EXAMPLES / name)]


class Bot:
    """Begun again after each kill, where it keeps its cursor."""

    def __init__(self, command: Sequence[str], folder: Path, url: str) -> None:
        self._command, self._folder = command, folder
        self._env = {"PATH": os.environ["PATH"], "WA_AGENT_URL": url, "HOME": str(folder)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self._folder / "bot.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, env=self._env, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[RunningAgent]:
    config = tmp_path / "agent.toml"
    config.write_text(SETTINGS + "\n[api]\ntrust_loopback = true\n")
    running = RunningAgent(tmp_path / "state", config)
    running.listen = f"127.0.0.1:{free_port()}"
    await running.start()
    yield running
    await running.close()


async def heard(agent: RunningAgent, id: str = "sales") -> list[str]:
    page = await agent.do("GET", f"/api/instance/{id}/sandbox/heard?limit=1000")
    return [each["text"] for each in page["messages"]]


@pytest.mark.parametrize("name", ["echo.py", "echo.mjs"])
async def test_bot_and_agent_are_killed_again_and_again_and_each_message_is_answered_once(
    name: str, agent: RunningAgent, tmp_path: Path, eventually: Eventually
) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 30
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=30)
    bot = Bot([*program(name), "sales"], tmp_path, f"http://{agent.listen}")
    chance = random.Random(1)
    wanted = [f"message {number}" for number in range(COUNT)]
    await bot.start()
    await eventually((tmp_path / ".echo-sales.cursor").exists)
    try:
        for number, text in enumerate(wanted):
            said = {"contact": ANN, "text": text}
            await agent.do("POST", "/api/instance/sales/sandbox/say", said)
            if number % 8 == 4:
                await asyncio.sleep(chance.uniform(0.0, 0.8))  # at any moment of its life
                await bot.kill()
                await bot.start()
            if number % 16 == 10:
                await asyncio.sleep(chance.uniform(0.0, 0.4))
                await agent.kill()
                await agent.start()
                await eventually(lambda: agent.status("sales"), "CONNECTED")
        await eventually(lambda: _in_order(agent), wanted, within=60)
    finally:
        await bot.kill()
    assert sorted(await heard(agent)) == sorted(wanted)


async def _in_order(agent: RunningAgent) -> list[str]:
    return sorted(await heard(agent), key=lambda text: int(text.split()[1]))


def commands_below(heading: str) -> list[str]:
    """Those of the part of README.md with this heading, without their comments."""
    _, found, text = (TOP / "README.md").read_text(encoding="utf-8").partition(f"# {heading}\n")
    assert found, f"README.md has no part {heading}"
    blocks = re.findall(r"```sh\n(.*?)```", re.split(r"\n##+ ", text)[0], re.DOTALL)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]


async def test_the_readme_leads_a_newcomer_to_a_bot_that_answers(
    start: Callable[..., Any], tmp_path: Path, eventually: Eventually
) -> None:
    """The README's own commands, but with a free port, and with packages that are there already."""
    run = await start()
    await eventually(lambda: GREETING in run.text(), within=60)
    url = "http://" + run.text().partition(GREETING)[2].split("/")[0]
    clone = tmp_path / "clone"
    (clone / ".venv").symlink_to(sys.prefix)
    shutil.copytree(EXAMPLES, clone / "scripts/examples")
    exports, bot, _, say, *look = commands_below("A bot in two minutes")
    scan = next(each for each in commands_below("Two commands") if "scan" in each)
    env = {**os.environ, "WA_AGENT_URL": url, "HOME": str(tmp_path)}

    async def do(command: str) -> str:
        # The command line asks over the socket, the bot over HTTP.
        words = f"{exports}\nunset WA_AGENT_URL\n{command}"
        shell = await asyncio.create_subprocess_exec(
            "sh", "-euc", words, cwd=clone, env=env, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            said, _ = await shell.communicate()
        assert shell.returncode == 0, command
        return said.decode()

    async def says(command: str, word: str) -> bool:
        return word in await do(command)

    await do(scan)
    assert bot.endswith(" &")
    with (tmp_path / "bot.log").open("wb") as log:
        command = f"{exports}\nexec {bot.removesuffix(' &')}"
        process = await asyncio.create_subprocess_exec(
            "sh", "-euc", command, cwd=clone, env=env, stdout=log, stderr=log
        )
    try:
        await eventually(lambda: says("wa-agent show demo", "CONNECTED"))
        await eventually((tmp_path / ".echo-demo.cursor").exists)
        await do(say)
        for command in look:
            await eventually(lambda c=command: says(c, "hello"), within=60)
    finally:
        process.kill()
        await process.wait()
