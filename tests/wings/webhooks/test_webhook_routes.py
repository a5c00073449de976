"""Webhooks over HTTP: shown to who may read, asked of by who may operate."""

import aiohttp
import pytest

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


@pytest.mark.parametrize("path", ["other/test", "other/retry", "other/dead", "..%2f/test"])
async def test_unknown_names_are_not_found(
    failing: House, local: aiohttp.ClientSession, path: str
) -> None:
    method = "GET" if path.endswith("dead") else "POST"
    assert (await local.request(method, f"/api/webhooks/{path}")).status == 404
    assert failing.webhooks.asked == []
