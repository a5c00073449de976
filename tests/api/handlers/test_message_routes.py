"""Messages that arrived in a session, over HTTP: pages, long polls, cursors, and who may read."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import House
from tests.conftest import Eventually

PATH = "/api/instance/shop/messages"


async def read(local: aiohttp.ClientSession, query: str = "", path: str = PATH) -> dict[str, Any]:
    answer = await local.get(f"{path}?{query}")
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


def texts(page: dict[str, Any]) -> list[str]:
    return [one.get("text", one["kind"]) for one in page["records"]]


async def test_pages_follow_each_other_from_the_oldest_on(
    house: House, local: aiohttp.ClientSession
) -> None:
    house.messages.add("shop", first=(first := 1_800_000_000_000)).keep(*"abcde")
    page = await read(local, "limit=2")
    assert texts(page) == ["a", "b"]
    assert (page["more"], page["oldest"], page["newest"]) == (True, first, first + 4)
    page = await read(local, f"limit=2&after={page['next']}")
    assert texts(page) == ["c", "d"]
    page = await read(local, f"after={page['next']}")
    assert (texts(page), page["more"]) == (["e"], False)
    for after in (page["next"], "newest"):
        last = await read(local, f"after={after}")
        assert (last["records"], last["next"]) == ([], page["next"])


async def test_a_long_poll_gets_what_comes_and_goes_on_behind_it(
    house: House, local: aiohttp.ClientSession, eventually: Eventually
) -> None:
    worker = house.messages.add("shop")
    worker.keep("before")
    polling = asyncio.create_task(read(local, "after=newest&wait=60"))
    await eventually(lambda: worker.asked and not worker.at_once)
    house.messages.keep("shop", "a")
    page = await polling
    assert texts(page) == ["a"]
    house.messages.keep("shop", "b")
    assert texts(await read(local, f"after={page['next']}&wait=60")) == ["b"]


async def test_a_long_poll_ends_when_the_agent_stops(
    house: House, local: aiohttp.ClientSession, eventually: Eventually
) -> None:
    worker = house.messages.add("shop")
    polling = asyncio.create_task(local.get(f"{PATH}?wait=60"))
    await eventually(lambda: worker.asked and not worker.at_once)
    house.messages.reader.end()
    answer = await polling
    assert (answer.status, (await answer.json())["error"]) == (503, "stopping")


async def test_a_long_poll_whose_key_is_revoked_gets_nothing(
    house: House, local: aiohttp.ClientSession, eventually: Eventually
) -> None:
    worker, key = house.messages.add("shop"), await house.key("operate")
    polling = asyncio.create_task(local.get(f"{PATH}?wait=60", headers=key))
    await eventually(lambda: worker.asked and not worker.at_once)
    (row,) = (await (await local.get("/api/keys")).json())["keys"]
    assert set(row) == {"id", "name", "scopes", "created", "last_used"}
    assert (await local.delete(f"/api/keys/{row['id']}")).status == 200
    house.messages.keep("shop", "for others")
    answer = await polling
    assert (answer.status, "for others" in await answer.text()) == (401, False)


async def test_a_gap_says_what_a_reader_missed(house: House, local: aiohttp.ClientSession) -> None:
    worker = house.messages.add("shop", first=101)
    worker.keep(*"abcdef")
    worker.drop(3)
    gap, *rest = (await read(local, "after=101"))["records"]
    assert (gap["kind"], gap["missing"], gap["first"], gap["last"]) == ("message_gap", 2, 102, 103)
    assert [one["text"] for one in rest] == ["d", "e", "f"]
    assert texts(await read(local)) == ["d", "e", "f"]  # who had none before misses none
    page = await read(local, "after=900")
    assert texts(page) == ["message_gap", "d", "e", "f"]
    assert ("missing" in page["records"][0], page["next"]) == (False, 106)


TO = "49151123456"
WRONG = ("after=-1", "after=x", "after=1234567890123456789", "after=1&after=2", "limit=501")
WRONG += ("wait=61", "since=1")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        *((f"messages?{query}", None, query.partition("=")[0]) for query in WRONG),
        (f"messages/m/media?chat={TO}x", None, "chat"),
        ("messages", {"to": TO, "text": "hi", "mentions": [f"{TO}x"]}, "mentions"),
        ("messages", {"to": TO, "type": "contact", "name": "Ann", "phone": "x"}, "phone"),
        ("read", {"chat": TO, "message_ids": ["M1", ""]}, "message_ids"),
        ("read", {"chat": f"{TO}x", "message_ids": ["M1"]}, "chat"),
        ("sandbox/say", {"contact": TO, "fields": {"name": "x" * 300_000}}, "fields"),
    ],
)
async def test_a_wrong_field_is_named(
    house: House, local: aiohttp.ClientSession, path: str, body: Any, field: str
) -> None:
    house.messages.add("shop")
    path = f"/api/instance/shop/{path}"
    answer = await (local.post(path, json=body) if body else local.get(path))
    refusal = await answer.json()
    assert (answer.status, refusal["field"], TO in str(refusal)) == (400, field, False)


async def test_who_may_read(house: House, local: aiohttp.ClientSession) -> None:
    house.messages.add("shop").keep("for shop")
    house.messages.add("other").keep("for other")
    statuses = {}
    for scope in ("read", "instance:other", "instance:shop", "operate"):
        key = await house.key(scope)
        statuses[scope] = (await local.get(PATH, headers=key)).status
        live = await local.get(f"{PATH}/live", headers={**key, "Upgrade": "x"})
        assert live.status == (409 if statuses[scope] == 200 else 403), scope
    assert statuses == {"read": 403, "instance:other": 403, "instance:shop": 200, "operate": 200}
    async with aiohttp.ClientSession(house.url) as anyone:
        assert (await anyone.get(PATH, headers={"X-Forwarded-For": "203.0.113.9"})).status == 401
        counted = await anyone.get("/api/messages", headers=await house.key("instance:shop"))
        assert counted.status == 403


async def test_what_a_session_keeps_is_counted_and_an_unknown_one_is_refused(
    house: House, local: aiohttp.ClientSession, eventually: Eventually
) -> None:
    assert (await local.get("/api/instance/nobody/messages?wait=30")).status == 404
    house.messages.add("shop").keep(*"ab")
    await read(local, "after=1&wait=1")
    async with house.figures("shop"):
        found = await (await local.get("/api/messages")).json()
    (shop,) = found["sessions"]
    outbox = shop.pop("outbox")
    assert shop == {"instance": "shop", "waiting": 1, "bytes": 300, "lost": 0}
    assert (outbox["waiting"], outbox["reason"]) == (None, "starting"), "it is not open yet"


async def test_a_reader_that_comes_back_settles_what_it_has(
    house: House, local: aiohttp.ClientSession
) -> None:
    worker = house.messages.add("shop")
    worker.keep(*"abc")
    await read(local, "after=0&wait=1")
    await read(local, "after=2")  # a look by hand is no reader
    await read(local, "after=900&wait=1")
    async with house.figures("shop"):
        assert worker.settled() == []
    await read(local, "after=2&wait=1")
    async with house.figures("shop"):
        assert worker.settled() == [2]


async def test_a_record_says_whether_its_chat_takes_an_answer(
    house: House, local: aiohttp.ClientSession
) -> None:
    worker = house.messages.add("shop")
    chats = ["551199999901@s.whatsapp.net", "777@g.us", "120363040000000000@g.us", "9@lid"]
    chats += ["status@broadcast", "1634567890@broadcast", "120363040000000000@newsletter"]
    for chat in chats:
        worker.keep("a", chat=chat)
    worker.keep("b", kind="message_reaction")
    found = [each.get("answerable") for each in (await read(local))["records"]]
    assert found == [True, False, True, False, False, False, False, None]


async def test_the_record_is_described(house: House, local: aiohttp.ClientSession) -> None:
    described = await (await local.get("/openapi.json")).json()
    read = described["paths"]["/api/instance/{id}/messages"]["get"]
    shown = read["responses"]["200"]["content"]["application/json"]["schema"]
    record = shown["properties"]["records"]["items"]
    assert {"cursor", "id", "kind", "text", "quote", "missing", "answerable"} <= set(
        record["properties"]
    )
    assert "message_gap" in record["properties"]["kind"]["enum"]
