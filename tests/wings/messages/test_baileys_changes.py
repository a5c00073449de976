"""Replies, edits and deletions of a Baileys session under its real worker, whose spool says whom
they are about: given again after a kill, each is the same one at the peer's phone."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import ConnectionStatus
from tests.engines.baileys import conftest as engine
from tests.engines.baileys.conftest import ACCOUNT, PEER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp
from tests.worker.conftest import Bench

pytestmark = pytest.mark.slow
__all__ = ["cache", "whatsapp"]
CHAT = f"{PEER}@s.whatsapp.net"


@pytest.mark.timeout(280)
async def test_what_is_given_again_after_a_kill_changes_nothing_twice(
    make_bench: Any, whatsapp: WhatsApp, cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WA_CACHE_PATH", str(cache))
    bench: Bench = make_bench(tmp_path / "worker")
    bench.session.mkdir(parents=True)
    session = engine.Bench(whatsapp, bench.session)
    await session.lay_paired()
    settings = {"url": whatsapp.socket}
    bench.identity(engine="baileys", paired=True, account=ACCOUNT, settings=settings)

    async def start() -> None:
        bench.start(identity=False, env={"WA_CACHE_PATH": str(cache)})
        await bench.linked()
        await bench.status(ConnectionStatus.CONNECTED)

    async def ask(do: str, **args: Any) -> Mapping[str, Any]:
        assert bench.link is not None
        return await bench.link.call(do, args, timeout=60)

    async def send(key: str, **message: Any) -> str:
        sent = await ask("send", message={"to": PEER, "type": "text", "key": key, **message})
        assert sent["outcome"] == "sent"
        return str(sent["id"])

    def shown() -> list[dict[str, Any]]:
        return [each for each in whatsapp.screen(PEER)["messages"] if each["from"]]

    await start()
    asked = await asyncio.to_thread(whatsapp.say, PEER, ACCOUNT, "coming?")
    found: Mapping[str, Any] = {}
    while asked not in found:
        await ask("messages", after=0, limit=10, wait=5)
        found = (await ask("messages_find", chat=CHAT, message_ids=[asked]))["found"]
    assert (found[asked]["text"], found[asked]["from_me"]) == ("coming?", False)
    about = {"quote": asked, "quote_from": found[asked]["sender"], "quote_text": "coming?"}

    async def say_all() -> list[str]:
        reply = await send("k1", text="yse", **about)
        wrong = await send("k2", text="wrong")
        return [
            *(reply, wrong),
            await send("k3", type="edit", message_id=reply, text="yes"),
            await send("k4", type="delete", message_id=wrong, sender="me"),
        ]

    before = await say_all()
    await session.until(lambda: [each.get("deleted") for each in shown()] == [None, 1])
    assert bench.process is not None
    bench.process.kill()
    await bench.ended()
    await start()
    assert await say_all() == before
    await send("k5", text="the last")
    await session.until(lambda: len(shown()) == 3)
    reply, wrong, _ = shown()
    assert (reply["text"], reply["edits"]) == ("yes", 1)
    assert reply["quote"] == {"id": asked, "from": PEER, "text": "coming?"}
    assert (wrong["text"], wrong["deleted"]) == ("", 1)
    assert whatsapp.screen(PEER)["ignored"] == 0
    ((message_id, chat, sender),) = (await ask("messages_unread", chat=CHAT))["messages"]
    marked = {"chat": chat, "message_ids": [message_id], "sender": sender}
    await ask("mark_read", asked=marked)
    await session.until(lambda: whatsapp.screen(PEER)["read"] == [asked])
