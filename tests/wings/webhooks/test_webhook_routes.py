"""Webhooks over HTTP: shown to who may read, asked of by who may operate."""

import aiohttp
import pytest

from agent.wings.webhooks.deliveries import Trial
from tests.api.conftest import House
from tests.wings.webhooks.fake_webhooks import FAILING, LETTER


@pytest.fixture
def failing(house: House) -> House:
    house.webhooks.known["ops"] = FAILING
    house.webhooks.letters = (LETTER,)
    return house


async def test_all_that_is_known_of_a_webhook_is_shown(
    failing: House, local: aiohttp.ClientSession
) -> None:
    found = await (await local.get("/api/webhooks")).json()
    assert found == {
        "webhooks": [
            {
                "name": "ops",
                "url": "https://ops.example/in",
                "state": "failing",
                "circuit": "open",
                "cursor": 41,
                "waiting": 7,
                "oldest": "2027-01-15T07:50:00.000Z",
                "problem": "it answered 503",
                "next_try": "2027-01-15T08:01:00.000Z",
                "delivered": "2027-01-15T07:48:20.000Z",
                "dead": 1,
                "messages": None,
            }
        ]
    }
    found = await (await local.get("/api/webhooks/ops/dead")).json()
    assert found == {
        "dead": [
            {
                "id": 12,
                "kind": "status",
                "instance": "shop",
                "time": "2027-01-15T07:45:00.000Z",
                "problem": "it answered 422",
                "put_aside": "2027-01-15T07:45:10.000Z",
                "message_id": "",
            }
        ]
    }


async def test_a_test_and_a_retry_are_asked_for(
    failing: House, local: aiohttp.ClientSession
) -> None:
    answer = await local.post("/api/webhooks/ops/test")
    assert answer.status == 200
    assert await answer.json() == {
        "delivered": True,
        "status": 200,
        "problem": "",
        "seconds": 0.013,
        "said": "ok",
    }
    failing.webhooks.answer = Trial(False, None, "its name cannot be looked up", 0.5, "")
    answer = await local.post("/api/webhooks/ops/test")
    assert (await answer.json())["problem"] == "its name cannot be looked up"
    answer = await local.post("/api/webhooks/ops/retry")
    assert (answer.status, await answer.json()) == (202, {"dead": 1})
    assert failing.webhooks.asked == ["test ops", "test ops", "retry ops"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/api/webhooks", "read"),
        ("GET", "/api/webhooks/ops/dead", "read"),
        ("POST", "/api/webhooks/ops/test", "operate"),
        ("POST", "/api/webhooks/ops/retry", "operate"),
    ],
)
async def test_every_route_of_webhooks_needs_its_scope(
    failing: House, method: str, path: str, scope: str
) -> None:
    less = {"read": "instance:shop", "operate": "read"}[scope]
    for given, wanted in ((less, (403,)), (scope, (200, 202))):
        key = await failing.key(given)
        async with aiohttp.ClientSession(headers=key) as session:
            answer = await session.request(method, failing.url + path)
            assert answer.status in wanted, given
    async with aiohttp.ClientSession() as session:
        assert (await session.request(method, failing.url + path)).status == 401


@pytest.mark.parametrize("path", ["other/test", "other/retry", "other/dead", "..%2f/test"])
async def test_unknown_names_are_not_found(
    failing: House, local: aiohttp.ClientSession, path: str
) -> None:
    method = "GET" if path.endswith("dead") else "POST"
    assert (await local.request(method, f"/api/webhooks/{path}")).status == 404
    assert failing.webhooks.asked == []
