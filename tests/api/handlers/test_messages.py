"""Messages over the real server: files as large as the settings say, and an engine's refusals."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from agent.api.http.call import LARGE_AT_ONCE
from agent.core.model import InstanceId
from agent.errors import EngineError, Refused, WaError
from tests.api.conftest import House, OpenHouse
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view
from tests.sessions import changed

PATH = "/api/instance/sales/messages?wait=30"
MIB = 1 << 20


def file(size: int, **more: str) -> dict[str, str]:
    content = base64.b64encode(bytes(size)).decode()
    return {"to": "49151123456", "type": "media", "mimetype": "a/b", "content": content, **more}


async def post(
    local: aiohttp.ClientSession, body: dict[str, str], headers: dict[str, str] | None = None
) -> aiohttp.ClientResponse:
    """In pieces: the client warns of long bodies in one."""
    kind = {"Content-Type": "application/json", **(headers or {})}
    return await local.post(PATH, data=io.BytesIO(json.dumps(body).encode()), headers=kind)


def make(house: House) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")


async def test_a_file_may_be_longer_than_other_bodies(open_house: OpenHouse) -> None:
    async with (
        open_house(media_limit=3 * MIB) as house,
        house.local(base_url="http://localhost") as local,
    ):
        make(house)
        for times in range(2):
            sent = await post(local, file(3 * MIB), {"Idempotency-Key": "once"})
            assert sent.status == 200, await sent.text()
            assert ("Idempotent-Replayed" in sent.headers) is bool(times)
        assert [len(it[1]["content"]) for it in house.supervisor.sent] == [4 * MIB]
        refused = await post(local, file(3 * MIB + 1))
        told = await refused.json()
        assert (refused.status, told["error"], told["field"]) == (413, "too_large", "content")
        assert "api.media_limit" in told["message"]
        for wrong in ({"mimetype": "png"}, {"url": "x y"}):
            assert (await (await post(local, file(1, **wrong))).json())["field"] in wrong
        refused = await post(local, file(6 * MIB))
        assert (refused.status, (await refused.json())["field"]) == (413, "body")
        # All other routes keep their limit.
        assert (await local.post("/api/instance", data=io.BytesIO(b" " * 2 * MIB))).status == 413


async def test_only_so_many_long_bodies_are_in_memory_at_once(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    opened = open_house(body_limit=1024, body_timeout=4.0)
    async with opened as house, house.local(base_url="http://localhost") as local:
        make(house)
        come = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            whole = json.dumps(file(2000)).encode()
            yield whole[:1000]
            await come.wait()
            yield whole[1000:]

        kind = {"Content-Type": "application/json"}
        posts = [local.post(PATH, data=slow(), headers=kind) for _ in range(LARGE_AT_ONCE)]
        many = [asyncio.create_task(post) for post in posts]
        await eventually(house.server._parts.large.locked)
        refused = await post(local, file(2000))
        assert (refused.status, (await refused.json())["error"]) == (503, "busy")
        assert (await local.post(PATH, json={"to": "49151123456", "text": "hi"})).status == 200
        come.set()
        assert {one.status for one in await asyncio.gather(*many)} <= {200, 408}
        assert (await post(local, file(2000))).status == 200


async def test_a_client_that_waits_too_short_gets_a_202_and_the_message_goes_out(
    house: House, local: aiohttp.ClientSession
) -> None:
    make(house)
    hello = {"to": "49151123456", "text": "hello"}
    house.supervisor.passing.clear()
    answer = await local.post(PATH.replace("30", "1"), json=hello)
    told = await answer.json()
    assert (answer.status, told["state"]) == (202, "accepted")
    waiting = asyncio.create_task(local.post(PATH, json={**hello, "text": "the next"}))
    house.supervisor.passing.set()
    assert (await waiting).status == 200
    assert (await (await local.get(told["look"]["state"])).json())["state"] == "sent"
    assert [message["text"] for _, message in house.supervisor.sent] == ["hello", "the next"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param("AAECAwQF", 200, id="as it should be"),
        pytest.param("AAEC\r\nAwQF\n", 200, id="in lines, as base64(1) writes it"),
        pytest.param("AAECAwQ", 400, id="cut off"),
        pytest.param("\n", 400, id="nothing"),
    ],
)
async def test_a_file_is_base64_or_refused(
    house: House, local: aiohttp.ClientSession, content: str, status: int
) -> None:
    make(house)
    answer = await local.post(PATH, json={**file(1), "content": content})
    assert answer.status == status
    if status == 200:
        assert house.supervisor.sent[-1][1]["content"] == "AAECAwQF"
    else:
        assert (await answer.json())["field"] == "content"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("x", code="invalid_request", field="to"), (400, "invalid_request", "to")),
        (EngineError("x", code="invalid_request", field="type"), (409, "not_supported", "type")),
        (EngineError("x", code="not_connected"), (503, "not_connected", None)),
        (Refused("x", code="not_running"), (503, "not_running", None)),
        (EngineError("x", code="file_too_large"), (413, "file_too_large", "content")),
        (EngineError("x", code="not_sent"), (502, "not_sent", None)),
    ],
)
async def test_a_refusal_of_an_engine_is_a_clear_answer(
    house: House, local: aiohttp.ClientSession, error: WaError, expected: tuple[int, str, str]
) -> None:
    make(house)
    house.supervisor.breaks_with = error
    known = {"type": "contact", "name": "Ann", "phone": "(11) 91234-5678"}
    answer = await local.post(PATH, json={"to": "49151123456", **known})
    told = await answer.json()
    assert (answer.status, told["error"], told["field"]) == expected


async def test_what_an_engine_never_sends_is_refused_at_once_by_its_name(house: House) -> None:
    message = {"type": "edit", "message_id": "M1", "text": "x"}
    view = make_view("sales")
    engine = replace(view.instance, engine="whaticket")
    house.supervisor.known[InstanceId("sales")] = changed(view, instance=engine)
    async with house.local(base_url="http://localhost") as local:
        answer = await local.post(PATH, json={"to": "491", **message})
        refused = await answer.json()
    assert (answer.status, refused["error"], refused["field"]) == (409, "not_supported", "type")
    assert "cannot send edit: the engine whaticket does not" in refused["message"]
    assert house.supervisor.sent == []


async def test_a_chat_is_told_for_the_moment(house: House, local: aiohttp.ClientSession) -> None:
    await local.post("/api/instance", json={"id": "sales", "engine": "sandbox"})
    path = "/api/instance/sales"
    read = {"chat": "49 151 123", "message_ids": ["M1", "M2"], "sender": "49 151 124"}
    assert (await (await local.post(f"{path}/read", json=read)).json())["marked"] == 2
    for said in ({"state": "typing", "chat": "49151123", "seconds": 5}, {"state": "available"}):
        assert (await local.post(f"{path}/presence", json=said)).status == 200
    chat, who = "49151123@s.whatsapp.net", "49151124@s.whatsapp.net"
    assert [row[1:] for row in house.supervisor.commands] == [
        ("mark_read", {"chat": chat, "sender": who}),
        ("typing", {"chat": chat, "seconds": 5}),
        ("available", {"chat": "", "seconds": 0}),
    ]
