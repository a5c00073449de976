"""A bot on whatsapp-web.js' doors, not changed for wa-agent."""

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.link.client import Link
from tests.engines.program.conftest import ProgramBench
from tests.lacking import lacks

CODE = "2@Zm9vYmFyYmF6cXV4Zm9vYmFy,a2V5,a2V5,a2V5"
BOT = Path(__file__).parents[2] / "standin" / "wwebjs" / "bot.cjs"


class ClientBench(ProgramBench):
    """The bot, and what happens to its client."""

    phone: Path

    async def happens(self, **what: Any) -> None:
        # Its path is there a moment before it listens, and may be longer than an address can be.
        path, line = os.path.relpath(self.phone), json.dumps(what).encode()
        with socket.socket(socket.AF_UNIX) as phone:
            await self.until(lambda: phone.connect_ex(path) == 0)
            phone.sendall(line)

    async def connected(self, **how: Any) -> Link:
        node = shutil.which("node")
        if node is None:
            lacks("node is not installed")
        self.phone = self.root.parent / "p"
        self.run(command=[node, str(BOT)], environment=[f"PHONE={self.phone}"])
        link = await self.linked()
        await self.happens(emit=["qr", CODE])
        await self.is_now("QR_REQUIRED")
        assert (await link.call("qr"))["qr"]["text"] == CODE
        await self.happens(emit=["authenticated"])
        await self.happens(emit=["loading_screen", 40, "WhatsApp"])
        await self.until(lambda: self.claims[-1].progress == 0.4)
        info = {"wid": {"user": "5511900000001"}}
        await self.happens(state="CONNECTED", info=info, emit=["ready"])
        claim = await self.is_now("CONNECTED")
        assert (claim.paired, claim.account) == (True, "5511900000001")
        return link


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ClientBench]:
    bench = ClientBench(tmp_path, "shop")
    yield bench
    await bench.clean_up()


async def test_a_client_is_noticed_asked_and_ended_in_order(bench: ClientBench) -> None:
    link = await bench.connected()
    came = {"fromMe": False, "type": "chat", "id": {"id": "A"}, "from": "551@c.us"}
    await bench.happens(emit=["message_create", came])
    await bench.happens(emit=["message_ack", {"id": {"id": "B"}}, 3])
    await bench.until(lambda: {its.kind for its in bench.happened} >= {"message", "ack"})
    assert (await link.call("probe", {"deep": True}))["detail"]["open"] is True

    assert await bench.stop() == 0
    assert Path(f"{bench.phone}.log").read_text() == "destroyed\n"
    log = bench.errors()
    assert "ready as 5511900000001, a Client: true" in log
    assert CODE not in log


async def test_a_page_that_hangs_proves_nothing_and_one_without_a_stream_is_not_connected(
    bench: ClientBench,
) -> None:
    link = await bench.connected()
    await bench.happens(state="hangs")

    async def proof_age() -> float:
        return float((await link.call("probe", {"deep": True}))["claim"]["proof_age"] or 0.0)

    # The order and the question take ways of their own; an age of seconds needs a page that hangs.
    begun = asyncio.get_running_loop().time()
    while await proof_age() < 1.0:
        assert asyncio.get_running_loop().time() < begun + 30
    await bench.happens(state="TIMEOUT")
    while bench.claims[-1].reason != "connection_lost":
        await proof_age()
        assert asyncio.get_running_loop().time() < begun + 30
    assert bench.claims[-1].status == "RECONNECTING"


@pytest.mark.parametrize(
    ("why", "status", "reason"),
    [
        ("LOGOUT", "DISCONNECTED", "logout"),
        ("CONFLICT", "DISCONNECTED", "conflict"),
        ("NAVIGATION", "RECONNECTING", "connection_lost"),
    ],
)
async def test_why_a_client_was_disconnected(
    bench: ClientBench, why: str, status: str, reason: str
) -> None:
    await bench.connected()
    seen = len(bench.claims)
    await bench.happens(emit=["disconnected", why])
    await bench.until(lambda: [its.reason for its in bench.claims[seen:]][:1] == [reason])
    assert bench.claims[seen].status == status
