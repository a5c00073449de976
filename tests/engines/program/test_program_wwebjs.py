"""A bot on whatsapp-web.js' doors, not changed for wa-agent."""

import json
import os
import shutil
import signal
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
EXAMPLE = BOT.parent / "node_modules" / "example.js"


class ClientBench(ProgramBench):
    """The bot, and what happens to its client."""

    phone: Path

    async def happens(self, **what: Any) -> None:
        # The phone's path is there a moment before it listens, and may be too long for an address.
        path, line = os.path.relpath(self.phone), json.dumps(what).encode()
        with socket.socket(socket.AF_UNIX) as phone:
            await self.until(lambda: phone.connect_ex(path) == 0)
            phone.sendall(line)

    def sent(self) -> list[dict[str, Any]]:
        """Requests that the program's client got, by the program or the worker."""
        path = Path(f"{self.phone}.sent")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def connected(self, bot: Path = BOT, **how: Any) -> Link:
        node = shutil.which("node")
        if node is None:
            lacks("node is not installed")
        self.phone = self.root.parent / "p"
        self.run(command=[node, str(bot)], environment=[f"PHONE={self.phone}"], **how)
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

    note = json.loads((bench.session / "program.json").read_text())
    assert note["session"] == ".wwebjs_auth/session"

    assert await bench.stop() == 0
    assert Path(f"{bench.phone}.log").read_text() == "destroyed\n"
    log = bench.errors()
    assert "ready as 5511900000001, a Client: true" in log
    assert CODE not in log


async def test_the_librarys_own_example_runs_without_a_change(
    bench: ClientBench, tmp_path: Path
) -> None:
    if not (EXAMPLE.parent / ".installed").exists():
        lacks("whatsapp-web.js' example is not here (tests/standin/wwebjs/install fetches it)")
    library = tmp_path / "node_modules" / "whatsapp-web.js"
    shutil.copytree(BOT.parent / "whatsapp-web.js", library)
    shutil.copy(EXAMPLE, library)
    link = await bench.connected(library / EXAMPLE.name)
    peer = "5511900000002@c.us"  # its own handler answers
    asks = {"from": peer, "body": "!ping", "fromMe": False, "hasMedia": False}
    await bench.happens(emit=["message", asks])
    await bench.until(lambda: bool(bench.sent()))
    assert bench.sent()[-1].items() >= {"chat": peer, "content": "pong"}.items()
    os.kill((await link.call("probe"))["detail"]["pid"], signal.SIGKILL)
    await bench.is_now("DISCONNECTED", "program_ended")
    await link.call("connect")
    await bench.happens(state="CONNECTED", info={"wid": {"user": "5511900000001"}}, emit=["ready"])
    await bench.is_now("CONNECTED")
    assert await bench.stop() == 0
    assert Path(f"{bench.phone}.log").read_text() == "destroyed\n"


async def test_why_a_client_was_disconnected(bench: ClientBench) -> None:
    await bench.connected()
    seen = len(bench.claims)
    await bench.happens(emit=["disconnected", "LOGOUT"])
    await bench.until(lambda: [its.reason for its in bench.claims[seen:]][:1] == ["logout"])
    assert bench.claims[seen].status == "DISCONNECTED"
