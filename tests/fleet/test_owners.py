"""Real agents on one PostgreSQL: who runs a session, and what becomes of its files elsewhere."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        yield fleet


async def owned_by(fleet: FleetOfAgents, machine: str, *ids: str) -> bool:
    found = await fleet.owners()
    return all(found.get(id) == machine for id in ids)


async def waits(agent: FleetAgent, id: str, why: str) -> bool:
    waiting = (await agent.fleet())["waiting"]
    return any(it["id"] == id and why in it["why"] for it in waiting)


async def here(agent: FleetAgent, ids: list[str]) -> bool:
    """The machine's own registry has these sessions."""
    folders = (agent.state / "sessions").iterdir()
    return sorted(it.name for it in folders if not it.name.startswith(".")) == ids


async def test_the_sessions_of_a_lost_machine_run_on_another_one(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await fleet.create("shop", "desk", on="a")
    await eventually(lambda: fleet.connected(["shop", "desk"]), within=30)
    await eventually(lambda: fleet.copied(["shop", "desk"]), within=10)
    await fleet["a"].lose_power()
    await eventually(lambda: owned_by(fleet, "b", "shop", "desk"), within=30)
    await eventually(lambda: fleet.connected(["shop", "desk"]), within=30)


async def test_a_machine_that_comes_back_retires_what_others_run(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await fleet.create("shop", on="a")
    await eventually(lambda: fleet.connected(["shop"]), within=30)
    await eventually(lambda: fleet.copied(["shop"]), within=10)
    await fleet["a"].lose_power()
    await eventually(lambda: owned_by(fleet, "b", "shop"), within=30)
    await fleet["a"].boot()
    trash = fleet["a"].state / "sessions" / ".trash"
    await eventually(lambda: trash.is_dir() and any(trash.glob("shop.*")), within=30)
    await eventually(lambda: here(fleet["a"], []), within=10)
    await eventually(lambda: fleet.connected(["shop"]), within=30)
    assert fleet["b"].state.joinpath("sessions/shop").is_dir()
    # What is in the trash comes back where no machine has the id.
    (name,) = [it.name for it in trash.glob("shop.*")]
    status, answer = await fleet["a"].ask("POST", f"/api/trash/{name}/restore")
    assert (status, answer["error"]) == (409, "exists")
    (name,) = [it.name for it in trash.glob("shop.*")]
    await fleet["b"].do("DELETE", "/api/instance/shop", {"confirm": "shop"})
    await fleet["a"].do("POST", f"/api/trash/{name}/restore")
    assert await fleet.owners() == {"shop": "a"}
    await eventually(lambda: fleet.connected(["shop"]), within=30)


async def test_a_move_and_a_drain_lose_no_pairing(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    ids = ["s1", "s2", "s3"]
    await fleet.create(*ids, on="a")
    await eventually(lambda: fleet.connected(ids), within=30)
    await eventually(fleet.know_each_other, within=30)
    refusals = {"a": (409, "already_there"), "nowhere": (404, "not_found")}
    for to, refusal in refusals.items():
        status, answer = await fleet["a"].ask("POST", "/api/instance/s1/move", {"to": to})
        assert (status, answer["error"]) == refusal
    await fleet["a"].do("POST", "/api/fleet/machines/b/drain")
    status, answer = await fleet["a"].ask("POST", "/api/instance/s1/move", {"to": "b"})
    assert (status, answer["error"]) == (409, "no_machine")
    assert "b is drained" in answer["message"]
    await fleet["a"].do("POST", "/api/fleet/machines/b/undrain")
    await fleet["a"].do("POST", "/api/instance/s1/move", {"to": "b"})
    await eventually(lambda: owned_by(fleet, "b", "s1"), within=20)
    await fleet["a"].do("POST", "/api/fleet/machines/a/drain")
    await eventually(lambda: owned_by(fleet, "b", *ids), within=40)
    await eventually(lambda: fleet.connected(ids), within=20)
    await eventually(lambda: here(fleet["a"], []), within=10)
    story = await fleet["b"].do("GET", "/api/instance/s1/events")
    assert "arrived" in [it["kind"] for it in story["events"]]
    # A session whose copy is gone waits for it: an empty one under its id would end its pairing.
    fleet.database.sql(
        "UPDATE wa_agent.session SET epoch = epoch + 1,"
        " machine = (SELECT id FROM wa_agent.machine WHERE name = 'a') WHERE id = 's3';"
        "DELETE FROM wa_agent.copy WHERE session = 's3';"
        "UPDATE wa_agent.machine SET changes = changes + 1"
    )
    await eventually(lambda: waits(fleet["a"], "s3", "no copy of it is stored"), within=20)
    await fleet["a"].do("POST", "/api/fleet/machines/a/undrain")
    body = {"id": "s3", "engine": "sandbox", "settings": {}, "on": "a"}
    status, answer = await fleet["a"].ask("POST", "/api/instance", body)
    assert (status, answer["error"]) == (409, "exists")


async def test_what_an_operator_ordered_holds_on_the_next_machine(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    ids = ["off", "halted", "gone", "changed"]
    a, b = fleet["a"], fleet["b"]
    await fleet.create(*ids, on="a")
    await eventually(lambda: fleet.connected(ids), within=30)
    await eventually(lambda: fleet.copied(ids), within=10)
    await a.do("POST", "/api/instance/off/disable")
    await a.do("POST", "/api/instance/halted/stop")
    settings = {**fleet.settings, "messages_per_minute": 7}
    await a.do("PATCH", "/api/instance/changed", {"settings": settings})
    await a.do("DELETE", "/api/instance/gone", {"confirm": "gone"})
    wanted = dict(await fleet.rows("SELECT id, wanted FROM wa_agent.session"))
    assert wanted == {"off": "disabled", "halted": "stopped", "changed": "running"}
    await a.lose_power()
    await eventually(lambda: owned_by(fleet, "b", *wanted), within=30)
    await eventually(lambda: here(b, sorted(wanted)), within=20)
    await eventually(lambda: fleet.connected(["changed"]), within=20)
    views = {id: await b.do("GET", f"/api/instance/{id}") for id in wanted}
    assert [views[id]["enabled"] for id in ("off", "halted", "changed")] == [False, True, True]
    kept = json.loads((b.state / "sessions/changed/instance.json").read_text())
    assert kept["settings"]["messages_per_minute"] == 7
    assert not {"off", "halted"} & fleet.witness.connected().keys()


async def test_files_from_an_earlier_ownership_are_never_started(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    """The session was on `b` meanwhile, and is this machine's again before its agent looks."""
    a, b = fleet["a"], fleet["b"]
    await fleet.create("x", on="a")
    await eventually(lambda: fleet.connected(["x"]), within=30)
    await eventually(lambda: fleet.copied(["x"]), within=10)
    await a.lose_power()
    await eventually(lambda: owned_by(fleet, "b", "x"), within=30)
    await eventually(lambda: fleet.connected(["x"]), within=30)
    await b.lose_power()
    fleet.database.sql(
        "UPDATE wa_agent.session SET epoch = epoch + 1,"
        " machine = (SELECT id FROM wa_agent.machine WHERE name = 'a')"
    )
    await a.boot()
    await eventually(lambda: fleet.connected(["x"]), within=30)
    kept = json.loads((a.state / "sessions/x/instance.json").read_text())
    assert kept["fleet_epoch"] == 2
    assert list((a.state / "sessions/.trash").glob("x.*"))
