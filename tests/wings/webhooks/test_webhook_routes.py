"""Webhooks over HTTP: shown to who may read, asked of by who may operate."""

import aiohttp
import pytest

from tests.api.conftest import House
from tests.wings.webhooks.fake_webhooks import FAILING


@pytest.fixture
def failing(house: House) -> House:
    house.webhooks.known["ops"] = FAILING
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


@pytest.mark.parametrize("path", ["other/test", "other/retry", "..%2f/test"])
async def test_unknown_names_are_not_found(
    failing: House, local: aiohttp.ClientSession, path: str
) -> None:
    assert (await local.post(f"/api/webhooks/{path}")).status == 404
    assert failing.webhooks.asked == []
