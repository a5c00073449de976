"""The two addresses of a whaticket-like server: the operator's stop and start under other names."""

import asyncio

import pytest

from agent.core.model import UNIT_ABSENT, ConnectionStatus, InstanceId
from tests.fakes.supervisor import make_view

DOWN, UP = "/whatsapp/shop/disconnect", "/whatsapp/shop/start-session"
STATUS = ConnectionStatus


@pytest.fixture
def shop(house):
    house.supervisor.known[InstanceId("shop")] = make_view("shop")
    return InstanceId("shop")


async def test_disconnect_is_a_stop_and_start_session_a_start(house, local, shop):
    down = await local.put(DOWN)
    found = await down.json()
    assert (down.status, found["override"], found["id"]) == (200, "stopped", "shop")
    assert found["status"] == found["connection_status"]
    up = await local.put(UP, json={})
    assert (up.status, (await up.json())["override"]) == (200, "started")


async def test_a_script_waits_for_the_session_or_its_code(house, local, shop, eventually):
    for status in (STATUS.CONNECTED, STATUS.QR_REQUIRED):
        house.supervisor.known[shop] = make_view(shop, status=STATUS.DISCONNECTED)
        asking = asyncio.create_task(local.put(f"{UP}?wait=30"))
        await eventually(lambda: house.supervisor.checked)
        house.supervisor.known[shop] = make_view(shop, status=status)
        async with asyncio.timeout(30):
            answer = await asking
        assert (answer.status, (await answer.json())["status"]) == (200, status)
        house.supervisor.checked.clear()


async def test_a_script_waits_until_it_is_closed(house, local, shop, eventually):
    house.supervisor.takes_long_to_stop = True
    asking = asyncio.create_task(local.put(f"{DOWN}?wait=30"))
    await eventually(lambda: house.supervisor.checked)
    assert not asking.done()
    house.supervisor.known[shop] = make_view(shop, status=STATUS.DISCONNECTED, unit=UNIT_ABSENT)
    async with asyncio.timeout(30):
        answer = await asking
    assert (await answer.json())["status"] == "DISCONNECTED"


async def test_when_the_time_is_over_the_answer_says_how_it_is(house, local, shop):
    house.supervisor.known[shop] = make_view(shop, status=STATUS.RECONNECTING)
    answer = await local.put(f"{UP}?wait=1")
    assert (answer.status, (await answer.json())["status"]) == (200, "RECONNECTING")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/whatsapp/nobody/disconnect", 404, "not_found"),
        ("/whatsapp/Foul%20Id/disconnect", 400, "invalid_id"),
        (f"{UP}?wait=301", 400, "invalid_request"),
        (f"{UP}?x=1", 400, "invalid_request"),
    ],
)
async def test_an_impossible_order_is_refused(local, shop, path, status, code):
    answer = await local.put(path)
    assert (answer.status, (await answer.json())["error"]) == (status, code)
