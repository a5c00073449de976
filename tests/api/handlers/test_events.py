"""Live events: filtered, resumed without gap or repetition, and no listener hurts another."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import agent
from agent.api.handlers.events import KINDS
from agent.core.model import InstanceId
from tests.api.conftest import House, OpenHouse, upgrade
from tests.conftest import Eventually

A, B = InstanceId("a"), InstanceId("b")


async def read(listener: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    async with asyncio.timeout(30):
        return json.loads(await listener.receive_str())


async def read_events(listener: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    found = []
    while len(found) < count:
        message = await read(listener)
        if message["type"] == "event":
            found.append(message["sentence"])
    return found


def test_each_kind_that_the_agent_writes_can_be_asked_for() -> None:
    text = "".join(it.read_text() for it in Path(agent.__file__).parent.rglob("*.py"))
    writes = r'\b(?:JournalEntry|entry|note|say|_report|said|intend|retire)\((?:\w+, )?"([a-z_]+)"'
    assert {*re.findall(writes, text)} <= {*KINDS.split(), "recovered"}
    assert [it for it in KINDS.split() if f'"{it}"' not in text] == []


async def test_a_listener_hears_what_it_asked_for(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        everything = await local.ws_connect("/api/events")
        only_b = await local.ws_connect("/api/events?instance=b&kind=verdict")
        assert (await read(everything))["type"] == "hello"
        assert (await read(only_b))["type"] == "hello"
        house.supervisor.note(A, "status", "one")
        house.supervisor.note(B, "status", "two")
        house.supervisor.note(B, "verdict", "three")
        assert await read_events(everything, 3) == ["one", "two", "three"]
        assert await read_events(only_b, 1) == ["three"]
        await everything.close()
        await only_b.close()


async def test_a_listener_whose_key_is_revoked_hears_nothing_more(house: House) -> None:
    keys = {name: await house.key("read") for name in ("revoked", "kept")}
    async with house.local(base_url="http://localhost") as local:
        listeners = {
            name: await local.ws_connect("/api/events", headers=key) for name, key in keys.items()
        }
        for listener in listeners.values():
            assert (await read(listener))["type"] == "hello"
        id = keys["revoked"]["Authorization"].split("_")[1]
        assert (await local.delete(f"/api/keys/{id}")).status == 200
        async with asyncio.timeout(30):
            closed = await listeners["revoked"].receive()
        assert closed.type is aiohttp.WSMsgType.CLOSE
        assert (closed.data, closed.extra) == (1008, "its key was revoked")
        house.supervisor.note(A, "status", "one")
        assert await read_events(listeners["kept"], 1) == ["one"]
        await listeners["kept"].close()


async def test_a_listener_that_comes_back_gets_the_rest_once_and_in_order(house: House) -> None:
    for number in range(1200):
        house.supervisor.note(A, "status", str(number))
    async with house.local(base_url="http://localhost") as local:
        listener = await local.ws_connect("/api/events?after=100")
        house.supervisor.note(A, "status", "meanwhile")
        found = await read_events(listener, 1101)
        house.supervisor.note(A, "status", "afterwards")
        found += await read_events(listener, 1)
        assert found == [str(n) for n in range(100, 1200)] + ["meanwhile", "afterwards"]
        await listener.close()


async def test_a_listener_of_a_journal_that_was_lost_is_notified_and_listens_on(
    house: House,
) -> None:
    house.supervisor.note(A, "status", "one")
    async with house.local(base_url="http://localhost") as local:
        listener = await local.ws_connect("/api/events?after=500")
        assert (await read(listener))["type"] == "hello"
        assert await read(listener) == {"type": "reset", "cursor": 0}
        house.supervisor.note(A, "status", "two")
        assert await read_events(listener, 1) == ["two"]
        await listener.close()
        resumed = await local.ws_connect("/api/events?after=2")
        assert (await read(resumed))["type"] == "hello"
        house.supervisor.note(A, "status", "three")
        assert (await read(resumed))["sentence"] == "three", "the end of the journal is no other"
        await resumed.close()


async def test_silence_is_filled_with_heartbeats(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.api.handlers.events.HEARTBEAT", 1)
    async with house.local(base_url="http://localhost") as local:
        listener = await local.ws_connect("/api/events")
        assert [(await read(listener))["type"] for _ in range(2)] == ["hello", "heartbeat"]
        await listener.close()


async def test_f77_a_listener_that_never_reads_is_dropped_and_the_others_hear_all(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with (
        open_house(event_queue=50) as house,
        house.local(base_url="http://localhost") as local,
    ):
        _, writer = await asyncio.open_unix_connection(str(house.socket_path), limit=1)
        writer.write(upgrade())
        good = await local.ws_connect("/api/events")
        await eventually(lambda: len(house.supervisor.bus._subscriptions) == 2)
        heard = 0
        while len(house.supervisor.bus._subscriptions) == 2:
            for _ in range(20):
                house.supervisor.note(A, "status", "x" * 5000)
            await read_events(good, 20)
            heard += 20
            assert heard < 10_000
        house.supervisor.note(A, "status", "still here")
        assert await read_events(good, 1) == ["still here"]
        await eventually(lambda: len(house.server._parts.listeners) == 1)
        await good.close()
        writer.close()


async def test_f77_a_listener_that_never_reads_does_not_hold_up_the_end(
    house: House, eventually: Eventually
) -> None:
    _, writer = await asyncio.open_unix_connection(str(house.socket_path), limit=1)
    writer.write(upgrade())
    await eventually(lambda: len(house.supervisor.bus._subscriptions) == 1)
    for _ in range(500):
        house.supervisor.note(A, "status", "x" * 5000)
    async with asyncio.timeout(60):
        await house.server.close()
    writer.close()


@pytest.mark.parametrize("sent", ["x" * 5000, "chatter"])
async def test_f76_a_listener_that_talks_is_closed(house: House, sent: str) -> None:
    async with house.local(base_url="http://localhost") as local:
        listener = await local.ws_connect("/api/events")
        for _ in range(40):
            try:
                await listener.send_str(sent)
            except ConnectionError:
                break
        async with asyncio.timeout(30):
            while not listener.closed:
                await listener.receive()
        assert (await local.get("/healthz")).status == 200


async def test_f75_f78_a_page_brings_its_key_as_a_subprotocol(house: House) -> None:
    key = (await house.key("instance:a"))["Authorization"].removeprefix("Bearer ")
    async with aiohttp.ClientSession(house.url) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/api/events")
        assert refused.value.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as foreign:
            await session.ws_connect("/api/events", origin="http://evil.example")
        assert foreign.value.status == 403
        listener = await session.ws_connect("/api/events", protocols=("wa-agent", f"bearer.{key}"))
        assert listener.protocol == "wa-agent"
        assert (await read(listener))["type"] == "hello"
        house.supervisor.note(B, "status", "not for this key")
        house.supervisor.note(A, "status", "for this key")
        assert await read_events(listener, 1) == ["for this key"]
        await listener.close()
        with pytest.raises(aiohttp.WSServerHandshakeError) as other:
            await session.ws_connect(
                "/api/events?instance=b", protocols=("wa-agent", f"bearer.{key}")
            )
        assert other.value.status == 403
