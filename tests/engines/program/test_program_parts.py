"""Bots whose library is in a part of their program: a process that a runner of TypeScript or a
cluster starts, or a thread; not changed for wa-agent."""

import os
import shutil
import signal
from typing import Any

from agent.link.client import Link
from tests.engines.program.test_program_baileys import BotBench, bot, whatsapp
from tests.lacking import lacks
from tests.standin.baileys.run import HERE

__all__ = ["bot", "whatsapp"]
TYPESCRIPT = HERE.parent / "typescript" / "node_modules"


async def scanned(bench: BotBench, **how: Any) -> Link:
    """Paired, and what it hears comes to the agent."""
    link = await bench.pair(**how)
    assert (await link.call("probe", {"deep": True}))["detail"]["open"] is True
    await bench.hear()
    return link


async def test_a_bot_in_typescript_is_noticed_without_a_change(bot: BotBench) -> None:
    if not (TYPESCRIPT / ".installed").exists():
        lacks("npm's packages are not installed (tests/standin/typescript/install does it)")
    node = shutil.which("node") or "node"
    command = [node, str(TYPESCRIPT / "tsx/dist/cli.mjs"), str(HERE / "bots" / "plain.ts")]
    link = await scanned(bot, command=command)

    pid = (await link.call("probe"))["detail"]["pid"]
    bot.claims.clear()
    os.kill(pid, signal.SIGKILL)
    await bot.is_now("DISCONNECTED", "program_ended")
    await link.call("connect")
    await bot.until(lambda: bot.claims[-1].status == "CONNECTED", within=90)
    assert await bot.stop() == 0
    assert "killed" not in bot.errors()
    assert len(bot.whatsapp.devices()) == 1


async def test_a_library_in_a_thread_is_noticed(bot: BotBench) -> None:
    await scanned(bot, bot="thread.mjs")
    assert await bot.stop() == 0
    assert "killed" not in bot.errors()
