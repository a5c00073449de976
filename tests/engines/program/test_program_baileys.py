"""Bots on the real Baileys, not changed for wa-agent, in front of the stand-in for WhatsApp."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import ConnectionStatus
from agent.errors import WaError
from agent.link.client import Link
from tests.engines.program.conftest import ProgramBench
from tests.lacking import lacks
from tests.standin.baileys.run import HERE, WhatsApp, why_not
from tests.standin.baileys.shared import shared_whatsapp

ACCOUNT, PEER = "5511900000001", "5511900000002"


@pytest.fixture
def whatsapp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WhatsApp:
    if reason := why_not("baileys") or why_not("baileys-6"):
        lacks(reason)
    return shared_whatsapp(request, tmp_path_factory)


class BotBench(ProgramBench):
    """One bot, and the phone that scans its code."""

    whatsapp: WhatsApp

    def run_bot(self, bot: str = "plain.mjs", *arguments: str, **declared: Any) -> None:
        node = shutil.which("node")
        assert node is not None
        command = declared.pop("command", [node, str(HERE / "bots" / bot), *arguments])
        environment = [f"WHATSAPP={self.whatsapp.socket}", *declared.pop("environment", [])]
        self.run(command=command, environment=environment, **declared)

    async def pair(self, bot: str = "plain.mjs", **declared: Any) -> Link:
        self.run_bot(bot, **declared)
        link = await self.linked()
        await self.status(ConnectionStatus.QR_REQUIRED, within=90)
        code = (await link.call("qr"))["qr"]["text"]
        await asyncio.to_thread(self.whatsapp.scan, code, ACCOUNT)
        claim = await self.is_now("CONNECTED")
        assert (claim.paired, claim.account) == (True, ACCOUNT)
        return link

    async def hear(self) -> None:
        """A contact's message comes."""
        id = await asyncio.to_thread(self.whatsapp.say, PEER, ACCOUNT, "hello")
        came = {"direction": "in", "id": id, "type": "conversation"}
        await self.until(lambda: any(came.items() <= its.detail.items() for its in self.happened))


@pytest.fixture
async def bot(whatsapp: WhatsApp, tmp_path: Path) -> AsyncIterator[BotBench]:
    bench = BotBench(tmp_path, "shop")
    bench.whatsapp = whatsapp
    yield bench
    await bench.clean_up()


@pytest.mark.parametrize("file", ["plain.mjs", "plain.cjs"])
async def test_a_bot_is_noticed_without_a_change(bot: BotBench, file: str) -> None:
    link = await bot.pair(file)
    detail = (await link.call("probe", {"deep": True}))["detail"]
    assert (detail["tells"], detail["open"]) == (True, True)
    assert bot.claims[-1].proof_age is not None

    # It is in the session's folder, and whole after an end in order; no scan comes after that.
    assert await bot.stop() == 0
    assert "killed" not in bot.errors()
    assert (bot.session / "auth_info_baileys" / "creds.json").stat().st_size > 100
    bot.run_bot(file)
    await bot.linked()
    await bot.is_now("CONNECTED")
    assert len(bot.whatsapp.devices()) == 1


async def test_a_bot_is_left_to_itself_as_long_as_it_comes_back(bot: BotBench) -> None:
    link = await bot.pair()
    pid = (await link.call("probe"))["detail"]["pid"]
    bot.claims.clear()
    await asyncio.to_thread(bot.whatsapp.trouble, ACCOUNT, "stream_error", code=503)
    await bot.until(lambda: any(its.reason == "service_unavailable" for its in bot.claims))
    await asyncio.to_thread(bot.whatsapp.trouble, ACCOUNT, "none")
    await bot.is_now("CONNECTED")
    assert {str(its.status) for its in bot.claims} == {"RECONNECTING", "CONNECTED"}
    assert (await link.call("probe"))["detail"]["pid"] == pid
    await bot.hear()

    # A WhatsApp that says nothing proves no connection, whatever the library thinks.
    await asyncio.to_thread(bot.whatsapp.trouble, ACCOUNT, "silence")

    async def proof_age() -> float:
        with suppress(WaError):
            return float((await link.call("probe", {"deep": True}))["claim"]["proof_age"])
        return 0.0

    begun = asyncio.get_running_loop().time()
    while await proof_age() < 3.0:
        assert asyncio.get_running_loop().time() < begun + 30

    await asyncio.to_thread(bot.whatsapp.trouble, ACCOUNT, "refuse", code=401)
    await asyncio.to_thread(bot.whatsapp.trouble, ACCOUNT, "stream_error", code=401)
    await bot.until(lambda: any(its.reason == "logout" for its in bot.claims))
    assert not bot.claims[-1].paired


async def test_a_bot_notices_nothing(bot: BotBench) -> None:
    """The bot's arguments, options, environment, output, signals and exit status are its own."""
    bot.run_bot("plain.mjs", "--shop", "1 2", environment=["NODE_OPTIONS=--no-warnings"])
    link = await bot.linked()
    await bot.is_now("QR_REQUIRED")
    pid = (await link.call("probe"))["detail"]["pid"]
    os.kill(pid, signal.SIGUSR2)  # Node's own answer: it ends
    claim = await bot.is_now("DISCONNECTED", "program_ended")
    assert claim.raw.startswith("it was ended by SIGUSR2")
    await bot.stop()
    assert 'arguments ["--shop","1 2"] options --no-warnings' in bot.errors()


def stands_still(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


@pytest.mark.parametrize("how", ["zeros", "gone"])
async def test_a_bot_that_was_killed_is_not_started_on_spoilt_files(
    bot: BotBench, how: str
) -> None:
    """The worker runs on, and looks before each start: the bot would begin again over them."""
    link = await bot.pair()
    pid = (await link.call("probe"))["detail"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    await bot.until(lambda: stands_still(pid))  # a thread of it may write a key still
    creds = bot.session / "auth_info_baileys" / "creds.json"
    if how == "zeros":
        creds.write_bytes(bytes(900))
    else:
        shutil.rmtree(creds.parent)
    os.kill(pid, signal.SIGKILL)
    await bot.is_now("DISCONNECTED", "program_ended")
    await link.call("connect")
    wanted = "session_damaged" if how == "zeros" else "unpaired_suspect"
    assert (await bot.is_now("AUTH_FAILURE", wanted)).paired
    assert (await link.call("probe"))["detail"]["program"] is False
    assert creds.exists() == (how == "zeros")
    assert not creds.exists() or creds.read_bytes() == bytes(900)
