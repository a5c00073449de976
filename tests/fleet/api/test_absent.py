"""A machine is away: its sessions are shown as published, and commands wait for their owner."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.fleet.waiting import CommandRow
from tests.fakes.supervisor import make_view
from tests.fleet.machines import AMachine, Fleet

Two = tuple[AMachine, AMachine]
SHOP = InstanceId("shop")


async def m2_ends(fleet: Fleet) -> AMachine:
    """Its agent is gone; it still owns `shop`."""
    machine = fleet.machines["m2"]
    await machine.server.close()
    return machine


async def test_a_state_is_shown_as_it_was_published_last(fleet: Fleet, two: Two) -> None:
    first, second = two
    view = second.supervisor.view(SHOP)
    changed = replace(view, instance=replace(view.instance, settings={"scan": "manual"}))
    second.supervisor.known[SHOP] = changed
    await second.publishing.publish()
    await m2_ends(fleet)
    async with first.local() as client:
        for path in ("/api/instance/shop", "/api/instance/shop/details"):
            answer = await client.get(path)
            found = await answer.json()
            assert answer.status == 200
            assert (found["id"], found["connection_status"]) == ("shop", "CONNECTED")
            assert (found["machine"], found["owner_away"]) == ("m2", True)
            assert 0 < found["as_of_seconds"] < 60
        here = await (await client.get("/api/instance/sales/details")).json()
        assert found.keys() == here.keys() | {"owner_away"}
        assert (found["settings"], found["unit"]["state"]) == ({"scan": "manual"}, "inactive")
        answer = await client.get("/api/instance/shop/qr")
        found = await answer.json()
        assert (answer.status, found["error"]) == (503, "owner_away")
        assert "m2 is away" in found["message"]
        assert "s ago" in found["message"]
        assert answer.headers["Retry-After"]


async def test_why_it_waits_is_read_by_its_earlier_name_from_a_machine_of_an_earlier_version(
    fleet: Fleet, two: Two
) -> None:
    first, second = two
    view = second.supervisor.view(SHOP)
    second.supervisor.known[SHOP] = replace(view, wait_reason="disk_full", wait_sentence="no room")
    await second.publishing.publish()
    fleet.postgres.sql("UPDATE wa_agent.view SET view = view - 'wait_reason' - 'wait_sentence'")
    fleet.postgres.sql("UPDATE wa_agent.view SET published_at = now() - interval '2 seconds'")
    await m2_ends(fleet)
    async with first.local() as client:
        (shop,) = [
            it
            for it in (await (await client.get("/api/instances")).json())["instances"]
            if it["id"] == SHOP
        ]
        alone = await (await client.get("/api/instance/shop")).json()
    for found in (shop, alone):
        assert (found["wait_reason"], found["wait_sentence"]) == ("disk_full", "no room")
        assert (found["hold"], found["hold_sentence"]) == ("disk_full", "no room")


@pytest.mark.parametrize("verb", ["enable", "disable", "start", "stop", "restart", "settings"])
async def test_a_command_waits_for_its_owner_and_is_carried_out_once(
    fleet: Fleet, two: Two, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = two
    await m2_ends(fleet)
    key = await first.key("app", "operate")
    async with first.local(headers=key) as client:
        if verb == "settings":
            body = {"settings": {"scan": "auto"}}
            answer = await client.patch("/api/instance/shop", json=body)
        else:
            answer = await client.post(f"/api/instance/shop/{verb}")
        kept = await answer.json()
        assert answer.status == 202, kept
        assert (kept["verb"], kept["state"], kept["machine"]) == (verb, "waiting", "m2")
        before = len(second.supervisor.journal)
        with caplog.at_level("INFO"):
            await carried_out(second)
            await carried_out(second)
        ended = await (await client.get(f"/api/fleet/commands/{kept['command']}")).json()
    assert (ended["state"], ended["outcome"], ended["machine"]) == ("ended", "done", "m2")
    assert ended["asked_by"] == "key app"
    assert any("key app: " + verb in record.getMessage() for record in caplog.records)
    if verb == "settings":
        assert second.supervisor.view(SHOP).instance.settings == {"scan": "auto"}
    else:
        assert len(second.supervisor.journal) == before + 1


async def carried_out(machine: AMachine) -> list[CommandRow]:
    """One look of a machine for its commands."""
    rows = await machine.commands._taken()
    for row in rows:
        await machine.commands.carry_out(row)
    return rows


async def test_the_same_key_stores_one_command(fleet: Fleet, two: Two) -> None:
    first, second = two
    third = await fleet.add("m3")
    await fleet.settle()
    await m2_ends(fleet)
    ids = []
    for machine in (first, third, first):
        key = await machine.key("app", "operate")
        async with machine.local(headers={**key, "Idempotency-Key": "k1"}) as client:
            ids.append((await (await client.post("/api/instance/shop/stop")).json())["command"])
            other = await client.post("/api/instance/shop/start")
            assert other.status == 409, await other.text()
    assert len(set(ids)) == 1
    assert len(await carried_out(second)) == 1


async def test_a_command_that_its_owner_refuses_ends_so(fleet: Fleet, two: Two) -> None:
    first, second = two
    await m2_ends(fleet)
    second.supervisor.breaks_with = Refused("cannot stop shop: its folder is lost")
    async with first.local() as client:
        kept = await (await client.post("/api/instance/shop/stop")).json()
        await carried_out(second)
        ended = await (await client.get(f"/api/fleet/commands/{kept['command']}")).json()
    assert (ended["outcome"], ended["sentence"]) == (
        "refused",
        "cannot stop shop: its folder is lost",
    )


async def test_the_next_owner_carries_out_what_waits(fleet: Fleet, two: Two) -> None:
    first, second = two
    await m2_ends(fleet)
    async with first.local() as client:
        kept = await (await client.post("/api/instance/shop/stop")).json()
        moved = await second.face.coordinator.hand_over(
            second.face.member, "shop", first.face.member.id, "m2 is lost"
        )
        assert moved
        await first.face.directory.read()
        # Its files are on their way still: the command waits for them.
        running = asyncio.create_task(first.commands.run())
        await _until(client, kept["command"], "begun")
        first.supervisor.known[SHOP] = make_view("shop")
        ended = await _until(client, kept["command"], "ended")
        running.cancel()
    assert (ended["outcome"], ended["machine"]) == ("done", "m1")
    assert first.supervisor.view(SHOP).desired.override == "stopped"
    assert not await carried_out(second)


async def _until(client: aiohttp.ClientSession, id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = await (await client.get(f"/api/fleet/commands/{id}")).json()
            if found["state"] == state:
                return found
            await asyncio.sleep(0.05)


async def test_a_command_whose_machine_died_in_the_middle_is_never_carried_out_again(
    fleet: Fleet, two: Two
) -> None:
    first, second = two
    await m2_ends(fleet)
    async with first.local() as client:
        kept = await (await client.post("/api/instance/shop/restart")).json()
        before = list(second.supervisor.journal)
        assert [row.id for row in await second.commands._taken()] == [kept["command"]]
        # Killed here: the next agent of the machine joins, and so does the next owner's.
        coordinator = second.face.coordinator
        second.face.member = await coordinator.join(fleet.describe("m2"))
        assert not await carried_out(second)
        moved = await coordinator.hand_over(
            second.face.member, "shop", first.face.member.id, "m2 is lost"
        )
        assert moved
        assert not await carried_out(first)
        ended = await (await client.get(f"/api/fleet/commands/{kept['command']}")).json()
    assert (ended["state"], ended["outcome"]) == ("ended", "unknown")
    assert second.supervisor.journal == before


async def test_a_command_older_than_a_day_is_not_carried_out(fleet: Fleet, two: Two) -> None:
    first, second = two
    await m2_ends(fleet)
    async with first.local() as client:
        kept = await (await client.post("/api/instance/shop/stop")).json()
        fleet.postgres.sql("UPDATE wa_agent.command SET asked_at = now() - interval '25 hours'")
        assert not await carried_out(second)
        ended = await (await client.get(f"/api/fleet/commands/{kept['command']}")).json()
    assert (ended["state"], ended["outcome"]) == ("ended", "expired")
    assert second.supervisor.view(SHOP).desired.override == "none"


async def test_a_command_is_shown_to_those_who_may_read_its_session(fleet: Fleet, two: Two) -> None:
    first, _ = two
    await m2_ends(fleet)
    async with first.local() as client:
        kept = await (await client.post("/api/instance/shop/stop")).json()
        path = f"/api/fleet/commands/{kept['command']}"
        other, own = await first.key("a", "instance:sales"), await first.key("b", "instance:shop")
        assert (await client.get(path, headers=other)).status == 404
        assert (await client.get(path, headers=own)).status == 200


async def test_wrong_bodies_are_refused_and_not_kept(fleet: Fleet, two: Two) -> None:
    first, second = two
    await m2_ends(fleet)
    reads = await first.key("grafana", "read")
    async with first.local() as client:
        path = "/api/instance/shop"
        assert (await client.patch(path, json={"settings": 7})).status == 400
        assert (await client.patch(path, json={})).status == 400
        assert (await client.patch(path, data=b"{}")).status == 400
        assert (await client.post(f"{path}/stop", json={"x": 1})).status == 400
        assert (await client.post(f"{path}/stop", headers=reads)).status == 403
    assert not await carried_out(second)


async def test_a_request_that_may_have_arrived_is_never_kept_as_a_command(
    fleet: Fleet, two: Two
) -> None:
    """The machine dies with the request in its hands: whether it was carried out is unknown."""
    first, second = two
    second.supervisor.breaks_with = None
    held = asyncio.Event()

    async def never(_id: InstanceId) -> Any:
        held.set()
        await asyncio.sleep(60)

    second.supervisor.restart = never  # type: ignore[method-assign]
    async with first.local() as client:
        asking = asyncio.create_task(client.post("/api/instance/shop/restart"))
        await asyncio.wait_for(held.wait(), 30)
        for connection in list(second.server._entrance.connections):
            connection.force_close()
        answer = await asking
        found = await answer.json()
    assert (answer.status, found["error"]) == (503, "unknown_outcome")
    assert not await carried_out(second)


async def test_a_machine_that_froze_holds_no_request_longer_than_its_lease(
    fleet: Fleet, two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its connections, takes requests, and answers none."""
    first, second = two

    async def never(_parts: object) -> Any:
        await asyncio.sleep(600)

    async with first.local() as client, asyncio.timeout(60):
        assert (await client.get("/api/instance/shop")).headers["WA-Fleet-Machine"] == "m2"
        monkeypatch.setattr("agent.api.fleet.door._PATIENCE", 0.2)
        monkeypatch.setattr("agent.api.app._elsewhere", frozen(first))
        monkeypatch.setattr(second.supervisor, "check_now", never)
        found = await (await client.get("/api/instance/shop")).json()
        assert (found["owner_away"], found["machine"]) == (True, "m2")
        asking = asyncio.create_task(client.post("/api/instance/shop/health"))
        done, _ = await asyncio.wait({asking}, timeout=0.6)
        assert not done, "its lease holds: an answer may take long"
        fleet.postgres.sql("UPDATE wa_agent.machine SET alive_until = now() WHERE name = 'm2'")
        await first.face.directory.read()
        answer = await asking
        assert (answer.status, (await answer.json())["error"]) == (503, "unknown_outcome")


def frozen(but: AMachine) -> Any:
    """Every server of this process but one hangs in its requests."""
    from agent.api.app import _elsewhere

    async def elsewhere(request: Any, route: Any, parts: Any, caller: Any) -> Any:
        if parts is not but.server._parts:
            await asyncio.sleep(600)
        return await _elsewhere(request, route, parts, caller)

    return elsewhere


async def test_a_session_that_came_here_a_moment_ago_is_answered_here(two: Two) -> None:
    """This machine's directory is old, and the former owner says so."""
    first, second = two
    moved = await second.face.coordinator.hand_over(
        second.face.member, "shop", first.face.member.id, "a test moves it"
    )
    assert moved
    view = second.supervisor.known.pop(SHOP)
    async with first.local() as client:
        first.face.directory._read_at = -10.0
        found = await (await client.get("/api/instance/shop")).json()
        assert (found["machine"], found["owner_away"]) == ("m1", True)
        first.face.directory.sessions["shop"] = replace(
            first.face.directory.sessions["shop"], machine=second.face.member.id
        )
        first.supervisor.known[SHOP] = view
        first.face.directory._read_at, first.face.directory._generation = -10.0, -1
        found = await (await client.get("/api/instance/shop")).json()
        assert (found["machine"], found["as_of_seconds"]) == ("m1", 0)


async def test_the_files_of_a_session_are_not_here_yet(two: Two) -> None:
    """This machine owns it, and its copy is still on its way."""
    first, _ = two
    del first.supervisor.known[InstanceId("sales")]
    async with first.local() as client:
        found = await (await client.get("/api/instance/sales")).json()
        assert (found["machine"], found["owner_away"]) == ("m1", True)
        assert (await client.post("/api/instance/sales/stop")).status == 202
        answer = await client.post("/api/instance/sales/health")
        assert (answer.status, (await answer.json())["error"]) == (503, "owner_away")


async def test_without_its_database_a_machine_answers_for_others_what_it_can(
    fleet: Fleet, two: Two
) -> None:
    first, second = two
    async with first.local() as client:
        assert (await client.get("/api/instances")).status == 200
        first.face.coordinator._database._address = "host=/nowhere"
        await first.face.coordinator.close()
        # m2 lives: it is asked as before.
        assert (await client.post("/api/instance/shop/stop")).status == 202
        listed = await (await client.get("/api/instances")).json()
        assert [entry["id"] for entry in listed["instances"]] == ["sales", "shop"]
        await m2_ends(fleet)
        shown = await (await client.get("/api/instance/shop")).json()
        assert shown["owner_away"]
        answer = await client.post("/api/instance/shop/start")
        assert (answer.status, (await answer.json())["error"]) == (503, "fleet_database")
    assert second.supervisor.view(SHOP).desired.override == "stopped"
