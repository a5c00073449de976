"""A session goes to a plain bot of another version of the library, and comes back."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agent.wings.moving.auth_folder import export_auth_folder
from agent.wings.moving.recognise import Hints, find_sessions
from agent.wings.moving.session import write_folder
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.lacking import lacks
from tests.standin.baileys.run import BaileysServer, why_not

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


async def test_a_session_goes_to_a_bot_of_version_6_and_back(bench: Bench, tmp_path: Path) -> None:
    if reason := why_not("baileys-6"):
        lacks(reason)
    await bench.pair()
    await bench.talk("here")
    await bench.stop()
    bots = tmp_path / "bots"
    export_auth_folder(bench.folder, bots, "7")
    bot = BaileysServer(bench.whatsapp, bots, tmp_path / "bot.log", "baileys-6")
    try:
        await bench.until(lambda: bot.status() == "CONNECTED", 60)
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "to the bot")
        # Version 6 knows people by number, version 7 by LID: the first message costs a retry.
        await bench.until(lambda: set(bench.whatsapp.receipts(ACCOUNT, id)) - {"retry"}, 60)
        bot.send(PEER, "from the bot")
        await bench.until(
            lambda: bench.whatsapp.person(PEER)["heard"][-1]["text"] == "from the bot"
        )
    finally:
        bot.end()
    [session] = find_sessions(str(bots), Hints())
    shutil.rmtree(bench.folder)
    bench.folder.mkdir()
    write_folder(session, bench.folder)
    await bench.start()
    await bench.is_now("CONNECTED", within=60)
    await bench.talk("back")
