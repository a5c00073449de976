"""A session of another program, moved in, logs in at the stand-in server and reads on."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agent.moving.sources import find_sessions
from agent.moving.sources import write_folder as write_session
from agent.vault.archives import FoundSession
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.moving.conftest import as_whaticket, read_folder, write_json
from tests.standin.baileys.run import BaileysServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

MESSAGES = 10


async def moves_in(bench: Bench, session: FoundSession) -> None:
    """From here on the moved session is the account's: ten messages are read, one is sent."""
    assert (session.problem, session.account) == ("", ACCOUNT)
    shutil.rmtree(bench.folder)
    bench.folder.mkdir()
    write_session(session, bench.folder)
    await bench.start()
    await bench.is_now("CONNECTED", within=60)
    ids = []
    for number in range(MESSAGES):
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, f"after {number}")
        await bench.until(lambda id=id: bench.heard.count("message", direction="in", id=id), 60)
        ids.append(id)
    again = [id for id in ids if "retry" in bench.whatsapp.receipts(ACCOUNT, id)]
    assert len(again) <= 1, "nine are read at once"
    await bench.send("an answer")
    assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims)


async def test_from_whatickets_json(bench: Bench, tmp_path: Path) -> None:
    await bench.pair()
    await bench.talk("hello")
    await bench.stop()
    path = write_json(tmp_path / "shop.json", as_whaticket(read_folder(bench.folder)))
    [session] = find_sessions(str(path), stopped=True)
    await moves_in(bench, session)


@pytest.mark.parametrize("package", ["baileys", "baileys-6.7"])
async def test_from_a_bot_of_the_real_library(bench: Bench, tmp_path: Path, package: str) -> None:
    server = BaileysServer(bench.whatsapp, tmp_path / "bot", tmp_path / "bot.log", package)
    try:
        await bench.until(server.qr, 90)
        await asyncio.to_thread(bench.whatsapp.scan, server.qr(), ACCOUNT)
        await bench.until(lambda: server.status() == "CONNECTED", 90)
        await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "to the bot")
        # A message that the bot leaves unread would be sent again to the session that was moved.
        await bench.until(lambda: bench.whatsapp.person(PEER)["unread"] == 0, 60)
        [running] = find_sessions(str(tmp_path / "bot"))
        assert running.code == "in_use"
    finally:
        server.end()
    [session] = find_sessions(str(tmp_path / "bot"), stopped=True)
    await moves_in(bench, session)
