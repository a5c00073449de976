"""Messages of a bot through a real agent: the same routes as for every session."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.daemon.conftest import RunningAgent
from tests.ports import free_port

EXAMPLE = Path(__file__).parents[2] / "scripts" / "examples" / "echo_program.py"
PATH = "/api/instance/shop/messages"
PHONE = "4915112345678"


async def test_a_bot_is_written_to_and_read_by_the_same_routes(
    make_agent: Callable[..., RunningAgent], eventually: Callable[..., Awaitable[Any]]
) -> None:
    port = free_port()
    command = f'["{sys.executable}", "{EXAMPLE}", "{port}"]'
    agent = make_agent(f'\n[[program]]\nname = "echo"\ncommand = {command}\nmessages = true\n')
    await agent.start()
    wanted = {"id": "shop", "engine": "program", "settings": {"program": "echo"}}
    await agent.do("POST", "/api/instance", wanted)
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{PHONE} hello\n".encode())
    async with asyncio.timeout(30):
        assert await reader.readline() == f"{PHONE} hello\n".encode()
    page = await agent.do("GET", f"{PATH}?after=0")
    assert [its["text"] for its in page["records"]] == ["hello"]
    told = {"to": PHONE, "text": "from the shop"}
    sent = await agent.do("POST", PATH, told)
    async with asyncio.timeout(30):
        assert await reader.readline() == f"{PHONE} from the shop\n".encode()
    picture = {"to": PHONE, "type": "media", "mimetype": "image/png", "content": "AAAA"}
    refused = await agent.do("POST", PATH, picture)

    async def ended(id: str) -> tuple[str, str]:
        shown = await agent.do("GET", f"/api/instance/shop/outbox/{id}")
        return shown["state"], shown.get("reason") or ""

    await eventually(lambda: ended(sent["id"]), ("sent", ""))
    await eventually(lambda: ended(refused["id"]), ("failed", "not_supported"))
    writer.close()
    await writer.wait_closed()
