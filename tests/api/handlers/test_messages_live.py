"""Messages over a WebSocket: each once and in order, for as long as its reader reads."""

import asyncio
import json

import aiohttp
import pytest

from agent.api.handlers import events
from tests.api.conftest import House, upgrade
from tests.conftest import Eventually

PATH = "/api/instance/shop/messages/live"


async def texts(listener: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    async with asyncio.timeout(30):
        found = [json.loads(await listener.receive_str()) for _ in range(count)]
    return [one.get("text", one["kind"]) for one in found]


async def test_each_record_comes_once_and_in_order_past_restarts_of_the_worker(
    house: House, local: aiohttp.ClientSession
) -> None:
    worker = house.messages.add("shop")
    many = [str(number) for number in range(110)]  # three pages
    worker.keep(*many)
    listener = await local.ws_connect(PATH)
    assert await texts(listener, len(many)) == many
    house.messages.keep("shop", "a", "b")
    assert await texts(listener, 2) == ["a", "b"]
    house.messages.lose_worker("shop")
    worker.keep("c")
    house.messages.connect_worker("shop")
    assert await texts(listener, 1) == ["c"]
    later = await local.ws_connect(f"{PATH}?after={worker.newest - 1}")
    assert await texts(later, 1) == ["c"]
    newest = await local.ws_connect(f"{PATH}?after=newest")
    house.messages.keep("shop", "d")
    for one in (listener, later, newest):
        assert await texts(one, 1) == ["d"]
        await one.close()


async def test_a_listener_that_does_not_read_is_let_go_and_costs_no_memory(
    house: House, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(events, "_SEND_SECONDS", 0.3)
    worker = house.messages.add("shop")
    worker.keep(*("x" * 60_000 for _ in range(400)))  # 24 MB
    _, writer = await asyncio.open_unix_connection(str(house.socket_path), limit=1024)
    writer.write(upgrade(PATH))
    await eventually(lambda: worker.asked)
    await eventually(lambda: not house.server._parts.listeners)
    pages = [args for do, args in worker.asked if do == "messages"]
    assert len(pages) < 5  # the first look, and what one page and the kernel hold
    writer.close()
