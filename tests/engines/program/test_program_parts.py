"""Bots whose library is in a part of their program: a process that a runner of TypeScript or a
cluster starts, or a thread; not changed for wa-agent."""

import asyncio
import os
import shutil
import signal

from agent.link.client import Link
from tests.engines.program.test_program_baileys import ACCOUNT, PEER, BotBench, bot, whatsapp
from tests.lacking import lacks
from tests.standin.baileys.run import HERE

__all__ = ["bot", "whatsapp"]
TYPESCRIPT = HERE.parent / "typescript" / "node_modules"


def run(bot: BotBench, command: list[str]) -> None:
    where = [f"WHATSAPP={bot.whatsapp.socket}"]
    bot.run(command=command, environment=where)


async def scanned(bot: BotBench, command: list[str]) -> Link:
    run(bot, command)
    link = await bot.linked()
    await bot.until(lambda: bot.claims and bot.claims[-1].status == "QR_REQUIRED", within=90)
    code = (await link.call("qr"))["qr"]["text"]
    await asyncio.to_thread(bot.whatsapp.scan, code, ACCOUNT)
    claim = await bot.is_now("CONNECTED")
    assert (claim.paired, claim.account) == (True, ACCOUNT)
    assert (await link.call("probe", {"deep": True}))["detail"]["open"] is True
    return link


async def message_comes(bot: BotBench) -> None:
    id = await asyncio.to_thread(bot.whatsapp.say, PEER, ACCOUNT, "hello")
    came = {"direction": "in", "id": id, "type": "conversation"}
    await bot.until(lambda: any(came.items() <= its.detail.items() for its in bot.happened))


async def test_a_bot_in_typescript_is_noticed_without_a_change(bot: BotBench) -> None:
    if not (TYPESCRIPT / ".installed").exists():
        lacks("npm's packages are not installed (tests/standin/typescript/install does it)")
    node = shutil.which("node") or "node"
    command = [node, str(TYPESCRIPT / "tsx/dist/cli.mjs"), str(HERE / "bots" / "plain.ts")]
    link = await scanned(bot, command)
    await message_comes(bot)

    pid = (await link.call("probe"))["detail"]["pid"]
    bot.claims.clear()
    os.kill(pid, signal.SIGKILL)
    await bot.is_now("DISCONNECTED", "program_ended")
    await link.call("connect")
    await bot.until(lambda: bot.claims[-1].status == "CONNECTED", within=90)
    assert await bot.stop() == 0
    assert "killed" not in bot.log()
    assert len(bot.whatsapp.devices()) == 1


async def test_a_library_in_a_thread_is_noticed(bot: BotBench) -> None:
    command = [shutil.which("node") or "node", str(HERE / "bots" / "thread.mjs")]
    await scanned(bot, command)
    await message_comes(bot)
    assert await bot.stop() == 0
    assert "killed" not in bot.log()
