"""The routes of repairing: who may, what they take, what they answer."""

import pytest

from agent.core.model import InstanceId
from tests.fakes.supervisor import make_view


def put(house, id="sales", **more):
    house.supervisor.known[InstanceId(id)] = make_view(id, **more)


async def test_reconnecting_is_shown_for_whom_the_key_may_see(house, local):
    put(house, "sales", circuit="open", reason="incident", wait_reason="incident")
    put(house, "other")
    key = await house.key("instance:sales")
    async with house.local() as session:
        answer = await session.get(f"{house.url}/reconnection-status", headers=key)
        shown = (await answer.json())["instances"]
    assert list(shown) == ["sales"]
    assert (shown["sales"]["circuit"], shown["sales"]["wait_reason"]) == ("open", "incident")
    assert {"attempts", "next_attempt", "reason", "sentence"} <= set(shown["sales"])


async def test_forcing_and_resetting(house, local):
    put(house)
    assert (await local.post("/force-reconnection/sales")).status == 202
    assert (await local.post("/reset-circuit-breaker/sales")).status == 200
    assert [what for what, _ in house.supervisor.repairs.asked] == ["force", "reset"]


async def test_a_key_of_an_instance_closes_no_circuit_of_a_backend_of_that_name(house, local):
    house.supervisor.backends.declare("evo")
    own, all_of_them = await house.key("instance:evo"), await house.key("operate")
    async with house.local() as session:
        url = f"{house.url}/reset-circuit-breaker/evo"
        assert (await session.post(url, headers=own)).status == 403
        assert (await session.post(url, headers=all_of_them)).status == 200


async def test_a_setup_creates_what_is_missing_and_gives_a_code(house, local):
    path, body = "/api/v1/whatsapp/setup", {"name": "Sales desk", "instanceName": "sales"}
    answer = await local.post(path, json=body | {"engine": "sandbox"})
    found = await answer.json()
    assert (found["created"], found["status"], found["qr"]) == (
        True,
        "QR_REQUIRED",
        "SANDBOX,2@abc",
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert house.supervisor.known["sales"].instance.settings == {"name": "Sales desk"}
    put(house, "sales")
    again = await (await local.post(path, json=body)).json()
    assert (again["created"], again["status"], again["qr"]) == (False, "CONNECTED", None)


@pytest.mark.parametrize(
    "body",
    [
        {"instanceName": "sales"},
        {"name": "x", "instanceName": "../x"},
        {"name": "x", "instanceName": "sales", "admin": True},
    ],
)
async def test_a_setup_that_cannot_be_understood_creates_nothing(house, local, body):
    assert (await local.post("/api/v1/whatsapp/setup", json=body)).status == 400
    assert house.supervisor.known == {}
