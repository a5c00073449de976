"""The database goes on as a copy that lost the last seconds, and in them sessions moved, paired and
were deleted."""

import json
from pathlib import Path

import pytest

from agent.fleet.fleet import MEMORY
from tests.conftest import Eventually
from tests.fleet.agents import FleetOfAgents, fleet_of_agents

CHANGES = 40
"""Of owners, that are lost: one acceptance is enough for all of them."""


@pytest.mark.slow
async def test_what_runs_stays_and_what_was_deleted_stays_deleted_once_a_loss_is_accepted(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(("a", "b"), tmp_path) as fleet:
        await fleet.create("gone", on="a")
        await fleet.create("x", on="a", scan="manual")
        await eventually(lambda: fleet.connected(["gone"]), within=60)
        await eventually(fleet.know_each_other, within=30)
        await eventually(lambda: stored(fleet, ["gone", "x"]), within=30)
        copy = fleet.database.back_up()

        await fleet["a"].do("POST", "/api/instance/x/move", {"to": "b"})
        await eventually(fleet.owners, {"gone": "a", "x": "b"}, within=30)
        await eventually(lambda: scanned(fleet, "x"), within=60)
        await eventually(lambda: fleet.connected(["x", "gone"]), within=60)
        await fleet.create("new", on="b")
        await eventually(lambda: fleet.connected(["new"]), within=60)
        await eventually(lambda: fleet.copied(["x", "new"]), within=30)
        await fleet["a"].do("DELETE", "/api/instance/gone", {"confirm": "gone"})
        fleet.database.sql(f"UPDATE wa_agent.fleet SET generation = generation + {CHANGES}")
        await eventually(lambda: heard_all(fleet), within=30)
        logins = {id: len(fleet.witness.connections(id)) for id in ("x", "new", "gone")}
        fleet.database.replace_by(copy)

        await eventually(lambda: halted(fleet, True), within=30)
        assert fleet.connected(["x", "new"]), "they go on where they run"
        await fleet["a"].do("POST", "/api/fleet/accept", {"confirm": True})
        await eventually(lambda: settled(fleet), within=60)
        await eventually(fleet.owners, {"x": "b", "new": "b"}, within=30)
        await eventually(lambda: fleet.copied(["x", "new"]), within=30)
        assert await halted(fleet, False), "one acceptance is enough"
        assert fleet.connected(["x", "new"])
        again = {id: len(fleet.witness.connections(id)) for id in logins}
        assert again == logins, "none of them logged in again"
        listed = await fleet["b"].do("GET", "/api/instances")
        assert sorted(it["id"] for it in listed["instances"]) == ["new", "x"]


async def halted(fleet: FleetOfAgents, expected: bool) -> bool:
    said = [bool((await it.fleet())["halted"]) for it in fleet.agents.values()]
    return said == [expected] * len(said)


async def settled(fleet: FleetOfAgents) -> bool:
    return all([(await it.fleet())["settled"] for it in fleet.agents.values()])


async def stored(fleet: FleetOfAgents, ids: list[str]) -> bool:
    return set(ids) <= {id for (id,) in await fleet.rows("SELECT session FROM wa_agent.copy")}


async def heard_all(fleet: FleetOfAgents) -> bool:
    """Every machine has the database's number on its disk."""
    ((generation,),) = await fleet.rows("SELECT generation FROM wa_agent.fleet")
    files = [it.state / MEMORY for it in fleet.agents.values()]
    return all(json.loads(it.read_text())["generation"] == generation for it in files)


async def scanned(fleet: FleetOfAgents, id: str) -> bool:
    return (await fleet["b"].ask("POST", f"/api/instance/{id}/sandbox/scan"))[0] < 300
