"""The baileys engine under its real worker, with the real spool: what people write is read once."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import ConnectionStatus
from scripts.benches.processes import tree
from tests.engines.baileys import conftest as engine
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp
from tests.worker.conftest import Bench

pytestmark = pytest.mark.slow
__all__ = ["cache", "whatsapp"]
GROUP = "120363000000000007@g.us"
TURNS, IN_A_ROW = 2, 10


@pytest.mark.timeout(280)
async def test_what_people_write_is_read_once_in_order_across_kills(
    make_bench: Any, whatsapp: WhatsApp, cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    bench: Bench = make_bench(tmp_path / "worker")
    bench.session.mkdir(parents=True)
    session = engine.Bench(whatsapp, bench.session)
    await session.lay_paired()
    whatsapp.make_group(GROUP, [ACCOUNT, PEER, OTHER])
    bench.identity(
        engine="baileys",
        paired=True,
        account=ACCOUNT,
        settings={"url": whatsapp.socket, "media_url": whatsapp.files()["url"]},
    )

    async def start() -> None:
        bench.start(identity=False, env={"WA_CACHE_PATH": str(cache)})
        await bench.linked()
        await bench.status(ConnectionStatus.CONNECTED)

    await start()
    said: dict[str, list[str]] = {PEER: [], OTHER: []}
    for turn in range(TURNS):
        for number in range(IN_A_ROW):
            writer, text = (PEER, OTHER)[number % 2], f"{turn} {number}"
            say = (ACCOUNT,) if number % 3 else (ACCOUNT, GROUP)
            how = whatsapp.say if number % 3 else whatsapp.say_in_group
            await asyncio.to_thread(how, writer, *say, text)  # type: ignore[operator]
            said[writer].append(text)
        assert bench.process is not None
        if turn % 2:
            bench.process.kill()
            await bench.ended()
            await start()
        else:
            for pid in list(tree(bench.process.pid))[1:]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await bench.status(ConnectionStatus.DISCONNECTED, "client_crashed")
            assert bench.link is not None
            await bench.link.call("connect", {"deadline": 60})
            await bench.status(ConnectionStatus.CONNECTED)
    await session.until(lambda: not whatsapp.device(ACCOUNT)["unconfirmed"])
    assert bench.link is not None
    page = await bench.link.call("messages", {"after": 0, "limit": 1000})
    records = [dict(each) for each in page["records"]]
    cursors = [record["cursor"] for record in records]
    assert cursors == list(range(cursors[0], cursors[0] + len(cursors)))
    for writer, texts in said.items():
        number = f"{writer}@s.whatsapp.net"
        found = [each["text"] for each in records if each.get("sender") == number]
        assert sorted(found) == sorted(texts)
    assert len({record["id"] for record in records}) == len(records)
    assert not any("_media" in record for record in records)
    said = await asyncio.to_thread(whatsapp.say_file, PEER, ACCOUNT, "image")
    chat = {"id": said["id"], "chat": f"{PEER}@s.whatsapp.net", "wait": 20, "deadline": 60}
    await session.until(lambda: not whatsapp.device(ACCOUNT)["unconfirmed"])
    file = await bench.link.call("messages_media", chat, timeout=60)
    assert (file["state"], file["sha256"]) == ("ready", said["sha256"])
