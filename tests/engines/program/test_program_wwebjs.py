"""A bot on whatsapp-web.js' doors, not changed for wa-agent."""

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EngineError
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
        # Its path is there a moment before it listens, and may be longer than an address can be.
        path, line = os.path.relpath(self.phone), json.dumps(what).encode()
        with socket.socket(socket.AF_UNIX) as phone:
            await self.until(lambda: phone.connect_ex(path) == 0)
            phone.sendall(line)

    def sent(self) -> list[dict[str, Any]]:
        """What the program's client was asked for, by whomever."""
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
    link = await bench.connected(library / EXAMPLE.name, messages=True)
    # Its own handler answers, and the agent sends by the same client.
    asks = {"from": PEER, "body": "!ping", "fromMe": False, "hasMedia": False}
    await bench.happens(emit=["message", asks])
    await bench.until(lambda: bool(bench.sent()))
    assert bench.sent()[-1].items() >= {"chat": PEER, "content": "pong"}.items()
    order = {"to": "5511900000002", "type": "text", "text": "hi", "key": "k" * 64}
    asked = asyncio.ensure_future(link.call("send", {"message": order}))
    await bench.until(lambda: len(bench.sent()) == 2)
    id = {"fromMe": True, "remote": PEER, "id": "SENT2"}
    await bench.happens(emit=["message_ack", {"id": id}, 1])
    assert await asked == {"id": "SENT2", "outcome": "sent"}
    pid = (await link.call("probe"))["detail"]["pid"]
    os.kill(pid, signal.SIGKILL)
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


ME, PEER = "5511900000001@c.us", "5511900000002@c.us"


async def kept(bench: ClientBench, link: Link, count: int) -> list[dict[str, Any]]:
    begun = asyncio.get_running_loop().time()
    while True:
        page = await link.call("messages", {"after": 0, "limit": 100})
        if len(page["records"]) >= count:
            return [dict(each) for each in page["records"]]
        assert asyncio.get_running_loop().time() < begun + 30, page


async def test_what_a_client_tells_is_kept(bench: ClientBench) -> None:
    link = await bench.connected(messages=True)
    key = {"fromMe": False, "remote": PEER, "id": "A1", "_serialized": f"false_{PEER}_A1"}
    data = {"notifyName": "Ana", "quotedStanzaID": "Q", "quotedParticipant": ME}
    came = {"id": key, "type": "chat", "from": PEER, "to": ME, "body": "hello", "timestamp": 1.7e9}
    more = {"hasQuotedMsg": True, "mentionedIds": [ME], "_data": data}
    await bench.happens(emit=["message_create", came | more])
    file = {"mimetype": "image/png", "size": 7, "filehash": "AAEC"}
    image = {"id": key | {"id": "A2"}, "type": "image", "body": "", "_data": file}
    await bench.happens(emit=["message_create", came | image])
    like = {"msgId": key, "timestamp": 1.7e9, "reaction": "\U0001f44d", "senderId": PEER}
    await bench.happens(emit=["message_reaction", like])
    await bench.happens(emit=["message_edit", came, "hello!", "hello"])
    await bench.happens(emit=["message_revoke_everyone", came, None])
    await bench.happens(emit=["call", {"id": "C", "from": PEER, "timestamp": 1.7e9}])
    own = {"id": {"fromMe": True, "remote": PEER, "id": "B"}, "type": "chat"}
    await bench.happens(emit=["message_ack", own, 3])
    records = await kept(bench, link, 7)
    peer = "5511900000002@s.whatsapp.net"
    by_kind = {each["kind"]: each for each in records}
    assert {each["chat"] for each in records} == {peer}
    first, second = (each for each in records if each["kind"] == "message")
    assert (first["id"], first["text"], first["sender"]) == (f"m:{peer}:{peer}:A1", "hello", peer)
    assert (first["name"], first["quote"]["message_id"]) == ("Ana", "Q")
    assert first["mentions"] == ["5511900000001@s.whatsapp.net"]
    assert second["media"] == {"mimetype": "image/png", "size": 7, "sha256": "000102"}
    assert by_kind["message_reaction"]["emoji"] == "\U0001f44d"
    assert by_kind["message_edit"]["text"] == "hello!"
    assert by_kind["message_ack"]["state"] == "read"
    assert by_kind["call"]["state"] == "offer"
    assert by_kind.keys() >= {"message_delete"}


async def test_the_agent_sends_by_a_client(bench: ClientBench) -> None:
    link = await bench.connected(messages=True)
    media = {"type": "media", "mimetype": "application/pdf", "content": "AAEC", "filename": "a.pdf"}
    for number, (message, wanted) in enumerate(
        [
            ({"type": "text", "text": "hi"}, {"content": "hi", "made": "String"}),
            ({"type": "location", "latitude": 1, "longitude": 2}, {"made": "Location"}),
            (media, {"made": "MessageMedia"}),
        ],
        1,
    ):
        order = {"to": "5511900000002", "key": f"{number}" * 64, **message}
        asked = asyncio.ensure_future(link.call("send", {"message": order}))
        await bench.until(lambda count=number: len(bench.sent()) == count)  # type: ignore[misc]
        assert bench.sent()[-1].items() >= {"chat": PEER, **wanted}.items()
        id = {"fromMe": True, "remote": PEER, "id": f"SENT{number}"}
        await bench.happens(emit=["message_ack", {"id": id}, 1])
        assert await asked == {"id": f"SENT{number}", "outcome": "sent"}
    assert bench.sent()[-1]["options"]["sendMediaAsDocument"] is True
    await link.call("mark_read", {"asked": {"chat": "5511900000002", "message_ids": ["A"]}})
    assert bench.sent()[-1] == {"seen": PEER}
    with pytest.raises(EngineError, match="this program sends") as refused:
        await link.call("send", {"message": {"type": "contact", "to": PEER}})
    assert refused.value.code == "not_supported"

    # Killed while it sends: it may have gone out.
    order = {"to": "5511900000002", "type": "text", "text": "die", "key": "k" * 64}
    assert (await link.call("send", {"message": order}))["outcome"] == "unknown"
