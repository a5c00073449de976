"""The routes of repairing: who may, what they take, what they answer."""

import pytest

from agent.core.incidents.incident import Incident, IncidentKind
from agent.core.model import ConnectionStatus, InstanceId
from tests.fakes.supervisor import make_view


def put(house, id="sales", **more):
    house.supervisor.known[InstanceId(id)] = make_view(id, **more)


async def test_recover_and_ensure_healthy_answer_how_it_ended(house, local):
    put(house)
    for word in ("recover", "ensure-healthy"):
        answer = await local.post(f"/api/instance/sales/{word}")
        assert answer.status == 200
        assert await answer.json() == {
            "healthy": True,
            "cleaned": False,
            "recovered": True,
            "ending": "recovered",
            "sentence": "",
        }
    assert [what for what, _ in house.supervisor.repairs.asked] == ["recover", "ensure_healthy"]


async def test_a_cleanup_that_would_end_a_pairing_must_be_meant(house, local):
    put(house)
    refused = await local.post("/api/instance/sales/cleanup", json={})
    assert refused.status == 409
    assert (await refused.json())["error"] == "would_unpair"
    done = await local.post("/api/instance/sales/cleanup", json={"confirm": True})
    assert (await done.json())["cleaned"] is True
    put(house, status=ConnectionStatus.QR_REQUIRED)
    unpaired = await local.post("/api/instance/sales/cleanup")
    assert unpaired.status == 200


async def test_reconnecting_is_shown_for_whom_the_key_may_see(house, local):
    put(house, "sales", circuit="open", wait_reason="incident")
    put(house, "other")
    key = await house.key("instance:sales")
    async with house.local() as session:
        answer = await session.get(f"{house.url}/reconnection-status", headers=key)
        shown = (await answer.json())["instances"]
    assert list(shown) == ["sales"]
    assert (shown["sales"]["circuit"], shown["sales"]["wait_reason"]) == ("open", "incident")
    sales = shown["sales"]
    former = sales["hold"], sales["hold_sentence"]
    assert former == (sales["wait_reason"], sales["wait_sentence"]), "for one more release"
    assert {"attempts", "next_attempt", "reason", "sentence"} <= set(shown["sales"])


async def test_forcing_and_resetting(house, local):
    put(house)
    assert (await local.post("/force-reconnection/sales")).status == 202
    assert (await local.post("/reset-circuit-breaker/sales")).status == 200
    assert [what for what, _ in house.supervisor.repairs.asked] == ["force", "reset"]
    for path in ("/force-reconnection/nobody", "/reset-circuit-breaker/nobody"):
        assert (await local.post(path)).status == 404
    foul = await local.post("/force-reconnection/NOBODY")
    assert (await foul.json())["error"] == "invalid_id"


async def test_a_key_of_an_instance_closes_no_circuit_of_a_backend_of_that_name(house, local):
    house.supervisor.backends.declare("evo")
    own, all_of_them = await house.key("instance:evo"), await house.key("operate")
    async with house.local() as session:
        url = f"{house.url}/reset-circuit-breaker/evo"
        assert (await session.post(url, headers=own)).status == 403
        assert (await session.post(url, headers=all_of_them)).status == 200


async def test_a_setup_creates_what_is_missing_and_gives_a_code(house, local):
    answer = await local.post(
        "/api/v1/whatsapp/setup",
        json={"name": "Sales desk", "instanceName": "sales", "engine": "sandbox"},
    )
    found = await answer.json()
    assert (found["created"], found["status"], found["qr"]) == (
        True,
        "QR_REQUIRED",
        "SANDBOX,2@abc",
    )
    assert answer.headers["Cache-Control"] == "no-store"
    made = house.supervisor.known[InstanceId("sales")].instance
    assert made.settings == {"name": "Sales desk"}
    put(house, "sales")
    again = await (
        await local.post(
            "/api/v1/whatsapp/setup", json={"name": "Sales desk", "instanceName": "sales"}
        )
    ).json()
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
    answer = await local.post("/api/v1/whatsapp/setup", json=body)
    assert answer.status == 400
    assert house.supervisor.known == {}


async def test_incidents_are_listed_and_released(house, local):
    one = Incident(IncidentKind.CHANGE, "evolution/shop", "phase_login", 5.0, ("a", "b", "c"))
    house.supervisor.repairs.active = [one]
    (shown,) = (await (await local.get("/api/incidents")).json())["incidents"]
    assert (shown["group"], shown["members"]) == ("evolution/shop", ["a", "b", "c"])
    assert shown["sentence"] == "phase_login on 3 instances of evolution/shop"
    assert (await local.post("/api/incidents/evolution/shop/release")).status == 200
    assert (await local.post("/api/incidents/evolution/shop/release")).status == 404


async def test_results_of_repairs_are_counted(house, local):
    shown = await (await local.get("/api/repairs/statistics")).json()
    assert (shown["checked"], shown["repaired"], shown["success_rate"]) == (4, 1, 1.0)
    assert shown["mean_check_seconds"] == pytest.approx(0.05)
    assert shown["mean_seconds_to_repair"] == 3.0


async def test_a_check_says_when_it_looked(house, local):
    put(house)
    shown = await (await local.post("/api/instance/sales/health")).json()
    assert shown["healthy"] is True
    assert shown["time"].endswith("Z")
