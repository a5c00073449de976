"""One list and one stream of events for all machines of a fleet."""

import asyncio
import json
import signal
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from agent.core.model import ConnectionStatus, InstanceId
from agent.engines.base import Qr
from agent.fleet.directory import _PATIENCE
from tests.fakes.supervisor import make_view
from tests.fleet.machines import AMachine, Fleet

Two = tuple[AMachine, AMachine]


async def listed(machine: AMachine, query: str = "", **more: Any) -> dict[str, Any]:
    async with machine.local(**more) as client:
        answer = await client.get(f"/api/instances{query}")
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


def ids(found: dict[str, Any]) -> list[str]:
    return [entry["id"] for entry in found["instances"]]


async def test_every_machine_lists_the_sessions_of_all(two: Two) -> None:
    for machine, own in zip(two, ("sales", "shop"), strict=True):
        found = await listed(machine)
        assert ids(found) == ["sales", "shop"]
        ages = {entry["id"]: entry["as_of_seconds"] for entry in found["instances"]}
        assert ages.pop(own) == 0
        assert all(0 < age < 30 for age in ages.values())
        assert [entry["machine"] for entry in found["instances"]] == ["m1", "m2"]
        assert found["total"] == 2


async def test_an_uptime_goes_on_while_nothing_is_published(fleet: Fleet, two: Two) -> None:
    """m2 lives, and its session did not change for a hundred seconds."""
    fleet.postgres.sql("UPDATE wa_agent.view SET published_at = now() - interval '100 seconds'")
    shop = (await listed(two[0], "?machine=m2"))["instances"][0]
    assert 160 <= shop["uptime_seconds"] <= 170
    assert shop["as_of_seconds"] < 30


async def test_a_sentence_that_a_database_refuses_hides_no_view(two: Two) -> None:
    first, second = two
    odd = make_view("shop", sentence="cut\0 \ud800 off \U0001f600")
    second.supervisor.known[InstanceId("shop")] = odd
    await second.own("more")
    assert await second.publishing.publish() == 2
    rows = {row.id: row.view for row in await first.face.coordinator.views(ids=["shop", "more"])}
    assert rows["shop"]["sentence"] == "cut  off \U0001f600"
    assert rows["more"]["connection_status"] == "CONNECTED"


async def test_views_are_published_again_in_a_new_epoch(fleet: Fleet, two: Two) -> None:
    """What was sent between a takeover and the next renewal, the database did not take."""
    _, second = two
    fleet.postgres.sql("UPDATE wa_agent.machine SET epoch = epoch + 1 WHERE name = 'm2'")
    fleet.postgres.sql("DELETE FROM wa_agent.view")
    second.supervisor.known[InstanceId("shop")] = make_view("shop", sentence="anew")
    await second.publishing.publish()
    assert not await second.face.coordinator.views(ids=["shop"])
    second.face.member = replace(second.face.member, epoch=second.face.member.epoch + 1)
    await second.publishing.publish()
    assert len(await second.face.coordinator.views(ids=["shop"])) == 1


async def test_a_frozen_database_holds_no_list_for_long(
    fleet: Fleet, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = two
    assert ids(await listed(first)) == ["sales", "shop"]
    first.face.directory._read_at = -10.0
    fleet.postgres.signal(signal.SIGSTOP)
    try:
        # Each takes less than a call to the database, which has 10 s.
        first.views_are_old()
        async with asyncio.timeout(9):
            assert ids(await listed(first)) == ["sales", "shop"]
        async with asyncio.timeout(9), first.local() as client:
            assert (await client.get("/api/instance/nothing")).status == 404
        # To ask for them again would fail now, and to ask who owns them takes this long.
        monkeypatch.setattr(first.face.coordinator, "views", None)
        async with asyncio.timeout(_PATIENCE):
            assert ids(await listed(first)) == ["sales", "shop"]
            assert (await listed(first, "?machine=m2"))["instances"][0]["as_of_seconds"] > 1
    finally:
        fleet.postgres.signal(signal.SIGCONT)


async def test_a_session_that_another_machine_owns_by_now_is_listed_there(two: Two) -> None:
    first, _ = two
    first.supervisor.known[InstanceId("shop")] = make_view("shop", sentence="about to be retired")
    found = (await listed(first))["instances"]
    assert [entry["machine"] for entry in found] == ["m1", "m2"]


async def test_a_list_is_paged_and_chosen_over_all_machines(fleet: Fleet) -> None:
    first, second = await fleet.add("m1"), await fleet.add("m2")
    await first.own("a1", "a3", "a5")
    await second.own("a2", "a4", status=ConnectionStatus.QR_REQUIRED)
    await second.own("a6")
    await fleet.settle()
    assert ids(await listed(first, "?limit=4")) == ["a1", "a2", "a3", "a4"]
    assert (await listed(first, "?limit=4"))["next"] == "a4"
    assert ids(await listed(first, "?limit=4&after=a4")) == ["a5", "a6"]
    assert ids(await listed(first, "?status=QR_REQUIRED")) == ["a2", "a4"]
    assert ids(await listed(first, "?verdict=healthy&machine=m2")) == ["a6"]
    assert ids(await listed(first, "?machine=m1")) == ["a1", "a3", "a5"]
    assert ids(await listed(second, "?machine=m1")) == ["a1", "a3", "a5"]
    assert ids(await listed(first, "?machine=m9")) == []
    assert ids(await listed(first, "?engine=web")) == []
    assert (await listed(first, "?enabled=false"))["total"] == 0
    key = await first.key("two", "instance:a2", "instance:a3")
    assert ids(await listed(first, headers=key)) == ["a2", "a3"]


async def test_a_change_is_on_the_other_machines_list_and_no_secret_is(
    fleet: Fleet, two: Two
) -> None:
    first, second = two
    waits = make_view("shop", status=ConnectionStatus.QR_REQUIRED)
    second.supervisor.known[InstanceId("shop")] = waits
    second.supervisor.codes[InstanceId("shop")] = Qr("SANDBOX,2@abc", 18.5, 1)
    assert await second.publishing.publish() == 1
    first_door = await listed(first)
    async with asyncio.timeout(20):
        while first_door["instances"][1]["connection_status"] != "QR_REQUIRED":
            await asyncio.sleep(0.05)
            first_door = await listed(first)
    # What changes all the time is no reason to publish again.
    later = replace(waits, memory_bytes=1, proof_age=9.0, seen_wall=waits.seen_wall + 5)
    second.supervisor.known[InstanceId("shop")] = later
    assert await second.publishing.publish() == 0
    rows = await second.face.coordinator.views(ids=["shop"])
    assert "SANDBOX,2@abc" not in json.dumps(dict(rows[0].view))
    assert all("settings" not in entry for entry in first_door["instances"])
    del second.supervisor.known[InstanceId("shop")]
    assert await second.publishing.publish() == 0


async def test_an_instance_is_created_where_it_belongs(two: Two) -> None:
    first, second = two
    wanted = {"id": "new", "engine": "sandbox", "on": "m2", "labels": {"disk": "fast"}}
    operates = await first.key("app", "operate")
    async with first.local(headers=operates) as client:
        answer = await client.post("/api/instance", json={**wanted, "failover": "wait"})
        made = await answer.json()
        assert (answer.status, made["id"], made["machine"]) == (201, "new", "m2")
        assert answer.headers["Location"] == "/api/instance/new"
        wrong = {**wanted, "labels": {"a": 1}}
        assert (await client.post("/api/instance", json=wrong)).status == 400
        refused = await client.post("/api/instance", json={**wanted, "id": "new"})
        assert (refused.status, (await refused.json())["error"]) == (409, "exists")
        here = await client.post("/api/instance", json={"id": "more", "engine": "sandbox"})
        assert (here.status, (await here.json())["machine"]) == (201, "m1")
    assert ("create", "new", "m2", {"disk": "fast"}, "wait") in second.face.asked
    assert not any(asked[0] == "place" for asked in second.face.asked)
    assert "new" not in first.supervisor.known


async def test_the_description_of_the_interface_tells_of_the_fleet(two: Two) -> None:
    async with two[0].local() as client:
        paths = (await (await client.get("/openapi.json")).json())["paths"]
    promise = paths["/api/fleet/promise"]["post"]
    assert promise["security"] == [{"fleet": []}]
    assert promise["description"].startswith("The fleet's bearer")
    asked = {field["name"] for field in paths["/api/instances"]["get"]["parameters"]}
    assert "machine" in asked
    for path in ("/api/fleet", "/api/fleet/commands/{command}", "/api/instance/{id}/move"):
        assert "404" in next(iter(paths[path].values()))["responses"]


async def test_the_fleet_and_a_session_s_owner_are_shown(two: Two) -> None:
    first, second = two
    async with first.local() as client:
        found = await (await client.get("/api/fleet")).json()
        assert (found["machine"], found["address"]) == ("m1", first.face.address)
        assert found["lease"] == {"holds": True, "seconds_left": 12.5, "by": "renewal"}
        machines = {entry["name"]: entry for entry in found["machines"]}
        assert machines["m2"]["reachable"] is True
        assert machines["m1"]["reachable"] is None
        assert (machines["m2"]["alive"], machines["m2"]["sessions"]) == (True, 1)
        assert found["waiting"] == [{"id": "lost", "why": "no machine is alive", "machine": "m9"}]
        assert found["moving"] == [{"id": "sales", "to": "m2"}]
        assert found["machines_as_of_seconds"] == 0.0
        session = await (await client.get("/api/instance/shop/fleet")).json()
        assert (session["machine"], session["epoch"]) == ("m2", 0)
        assert (session["copy_age_seconds"], session["failover"]) == (None, "newest")
        assert (session["copy_behind_seconds"], session["copy_problem"]) == (None, "")
        async with second.local() as owner:
            session = await (await owner.get("/api/instance/shop/fleet")).json()
        told = (session["copy_behind_seconds"], session["copy_problem"])
        assert told == (12.0, "m2 cannot copy shop")
        assert (await client.get("/api/instance/nothing/fleet")).status == 404
        await second.server.close()
        found = await (await client.get("/api/fleet")).json()
        assert [entry["reachable"] for entry in found["machines"]] == [None, False]


async def test_an_operator_s_orders_reach_the_fleet(two: Two) -> None:
    first, second = two
    async with first.local() as client:
        machine = "/api/fleet/machines/m2"
        assert (await client.post(f"{machine}/drain")).status == 202
        assert (await client.post(f"{machine}/undrain")).status == 200
        assert (await client.post(f"{machine}/forget", json={"confirm": "m1"})).status == 400
        assert (await client.post(f"{machine}/forget", json={"confirm": "m2"})).status == 200
        assert (await client.post("/api/fleet/accept", json={"confirm": False})).status == 400
        assert (await client.post("/api/fleet/accept", json={"confirm": True})).status == 200
        assert (await client.post("/api/fleet/leave")).status == 202
        accepts = "/api/instance/shop/accept-copy"
        assert (await client.post(accepts, json={"confirm": "other"})).status == 400
        assert (await client.post(accepts, json={"confirm": "shop"})).status == 200
        moved = await client.post("/api/instance/shop/move", json={"to": "m1"})
        assert (moved.status, await moved.json()) == (202, {"id": "shop", "from": "m2", "to": "m1"})
        operates = await first.key("app", "operate")
        for path in (f"{machine}/drain", "/api/fleet/leave", accepts, "/api/instance/shop/move"):
            assert (await client.post(path, headers=operates)).status == 403
    assert [asked[0] for asked in first.face.asked] == [
        *("drain", "undrain", "forget", "accept", "leave", "accept_copy")
    ]
    assert [asked[0] for asked in second.face.asked] == ["move"]


class Listener:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def until(self, type: str, **wanted: Any) -> dict[str, Any]:
        """The next frame of a kind."""
        async with asyncio.timeout(60):
            while True:
                frame: dict[str, Any] = await self._socket.receive_json()
                if frame["type"] == type and wanted.items() <= frame.items():
                    return frame


async def seen(machine: AMachine, listener: Listener, id: str) -> dict[str, Any]:
    """An event that happens on a machine again until the listener gets it: it may still connect."""
    task = asyncio.create_task(listener.until("event", machine=machine.name))
    while not task.done():
        machine.supervisor.note(InstanceId(id), "noted", "happened")
        await asyncio.wait([task], timeout=0.1)
    return task.result()


async def test_a_listener_hears_all_machines_and_stays_while_one_dies(
    fleet: Fleet, two: Two
) -> None:
    first, second = two
    async with first.local() as client, client.ws_connect("/api/events") as socket:
        listener = Listener(socket)
        assert (await listener.until("hello"))["machine"] == "m1"
        assert (await seen(first, listener, "sales"))["instance"] == "sales"
        assert (await seen(second, listener, "shop"))["instance"] == "shop"
        await second.server.close()
        away = await listener.until("machine_away")
        assert away["machine"] == "m2"
        assert (await seen(first, listener, "sales"))["machine"] == "m1"


async def test_events_of_a_machine_that_came_back_are_read_from_its_journal(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = two
    async with first.local() as client, client.ws_connect("/api/events") as socket:
        listener = Listener(socket)
        last = await seen(second, listener, "shop")
        for connection in list(second.server._entrance.connections):
            connection.force_close()
        second.supervisor.note(InstanceId("shop"), "meanwhile", "nobody listened")
        assert (await listener.until("machine_away"))["machine"] == "m2"
        assert (await listener.until("machine_back"))["machine"] == "m2"
        missed = await listener.until("event", kind="meanwhile")
        assert missed["cursor"] > last["cursor"]
    await second.server.close()
    assert not [it for it in caplog.records if it.levelname == "ERROR"], "its end is no failure"


async def test_a_listener_may_choose_one_machine_and_resume_there(two: Two) -> None:
    first, second = two
    for number in range(3):
        second.supervisor.note(InstanceId("shop"), f"n{number}", "before")
    async with first.local() as client:
        async with client.ws_connect("/api/events?machine=m2&after=1") as socket:
            listener = Listener(socket)
            kinds = [(await listener.until("event"))["kind"] for _ in range(2)]
            assert kinds == ["n1", "n2"]
            first.supervisor.note(InstanceId("sales"), "elsewhere", "not wanted")
            assert (await seen(second, listener, "shop"))["kind"] == "noted"
        history = await (await client.get("/api/events?machine=m2")).json()
        assert [event["kind"] for event in history["events"]][-3:] == ["n2", "n1", "n0"]
        assert (await client.get("/api/events?machine=m9")).status == 404


async def test_a_key_of_one_session_hears_only_that_one(two: Two) -> None:
    first, second = two
    await second.own("other")
    key = await first.key("shop", "instance:shop")
    async with first.local(headers=key) as client, client.ws_connect("/api/events") as socket:
        listener = Listener(socket)
        first.supervisor.note(InstanceId("sales"), "noted", "not theirs")
        second.supervisor.note(InstanceId("other"), "noted", "not theirs")
        assert (await seen(second, listener, "shop"))["instance"] == "shop"
        refused = await client.get("/api/events?instance=sales", headers={"Upgrade": "websocket"})
        assert refused.status == 403


async def test_a_machine_that_joins_later_is_heard(fleet: Fleet, two: Two) -> None:
    first, _ = two
    async with first.local() as client, client.ws_connect("/api/events") as socket:
        third = await fleet.add("m3")
        await third.own("late")
        await fleet.settle()
        assert (await seen(third, Listener(socket), "late"))["instance"] == "late"
