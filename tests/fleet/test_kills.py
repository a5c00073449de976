"""The agent is killed at each step of moving a session: it ends on one machine, paired, once."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import psycopg
import pytest

from tests.conftest import Eventually
from tests.fleet.agents import LASTING, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.fleet.test_owners import here, owned_by

LEAVES = (
    "SELECT FROM pg_stat_activity WHERE query LIKE '%leave_fleet%' AND wait_event_type = 'Lock'"
)
SOURCE = ("move_stopped", "move_copied", "move_handed_over", "fleet_stopped", "fleet_retired")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b"], tmp_path, env=LASTING) as fleet:
        yield fleet


async def killed_at(agent: FleetAgent, point: str) -> None:
    """Start its agent again, to be killed at this point; its workers go on."""
    await agent.kill()
    await agent.start({**agent.env, "WA_FAILPOINT": f"{point}:kill"})
    async with asyncio.timeout(30):
        while not (await agent.fleet())["lease"]["holds"]:  # noqa: ASYNC110 - over its API
            await asyncio.sleep(0.05)


def given_up(agent: FleetAgent, id: str) -> bool:
    said = rf"\[{id}\] .*(its files here are kept|files went to the trash)"
    return re.search(said, agent.log.read_text()) is not None


async def ended(agent: FleetAgent) -> None:
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 30) == -9, agent.log.read_text()


async def test_a_move_ends_on_the_target_wherever_the_source_is_killed(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    a, ids = fleet["a"], [point.replace("_", "-") for point in SOURCE]
    await fleet.create(*ids, on="a")
    await eventually(lambda: fleet.connected(ids), within=30)
    await eventually(fleet.know_each_other, within=30)
    for id, point in zip(ids, SOURCE, strict=True):
        await killed_at(a, point)
        await eventually(fleet.know_each_other, within=30)
        await a.do("POST", f"/api/instance/{id}/move", {"to": "b"})
        await ended(a)
        await a.boot()
        await eventually(lambda id=id: owned_by(fleet, "b", id), within=30)
        left = sorted(ids[ids.index(id) + 1 :])
        await eventually(lambda left=left: here(a, left), within=20)
        # Given up whole: the next kill is to come at the next session's steps, not in these.
        await eventually(lambda id=id: given_up(a, id), within=20)
    await eventually(lambda: fleet.connected(ids), within=30)


async def test_a_session_that_was_deleted_elsewhere_does_not_live_again_from_a_left_folder(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    a, b = fleet["a"], fleet["b"]
    await fleet.create("left", on="a")
    await eventually(lambda: fleet.connected(["left"]), within=30)
    await eventually(fleet.know_each_other, within=30)
    await killed_at(a, "move_handed_over")
    await eventually(fleet.know_each_other, within=30)
    await a.do("POST", "/api/instance/left/move", {"to": "b"})
    await ended(a)
    await eventually(lambda: len(fleet.witness.connections("left")) == 2, within=60)
    await b.do("DELETE", "/api/instance/left", {"confirm": "left"})
    await a.boot()
    await eventually(lambda: here(a, []), within=30)
    assert await fleet.owners() == {}
    assert given_up(a, "left")


async def test_a_session_that_arrives_is_taken_in_after_a_kill(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    a, b = fleet["a"], fleet["b"]
    await fleet.create("x", on="a")
    await eventually(lambda: fleet.connected(["x"]), within=30)
    await killed_at(b, "fleet_arrived")
    await eventually(fleet.know_each_other, within=30)
    await a.do("POST", "/api/instance/x/move", {"to": "b"})
    await ended(b)
    await b.boot()
    await eventually(lambda: fleet.connected(["x"]), within=30)
    assert await owned_by(fleet, "b", "x")
    # A creation that was cut short after its row was made becomes a session all the same.
    await killed_at(b, "fleet_claimed")
    with pytest.raises((OSError, aiohttp.ClientError)):
        await fleet.create("y", on="b")
    await ended(b)
    await b.boot()
    await eventually(lambda: fleet.connected(["x", "y"]), within=30)
    assert await owned_by(fleet, "b", "y")


async def test_a_machine_that_is_killed_while_it_leaves_keeps_its_sessions(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    a = fleet["a"]
    await fleet.create("x", on="a")
    await eventually(lambda: fleet.connected(["x"]), within=30)

    async def back() -> None:
        await a.boot()
        await eventually(lambda: owned_by(fleet, "a", "x"), within=30)
        await eventually(lambda: fleet.connected(["x"]), within=30)
        assert await here(a, ["x"])
        assert not list(a.state.glob("sessions/.trash/*"))

    for point, owners in (("fleet_leaving", {"x": "a"}), ("fleet_left", {})):
        await killed_at(a, point)
        await eventually(fleet.know_each_other, within=30)
        with suppress(aiohttp.ClientError):
            await a.do("POST", "/api/fleet/leave")
        await ended(a)
        assert await fleet.owners() == owners
        await back()
    # It dies while the database works on it: the database goes on, and carries it out later.
    async with await psycopg.AsyncConnection.connect(fleet.database.url) as locked:
        await locked.execute("SELECT * FROM wa_agent.session FOR UPDATE")
        leaving = asyncio.create_task(a.ask("POST", "/api/fleet/leave"))
        await eventually(lambda: fleet.rows(LEAVES))
        await a.kill()
        await asyncio.gather(leaving, return_exceptions=True)
        await a.start(a.env, ready=False)
        assert a.process is not None
        assert await asyncio.wait_for(a.process.wait(), 30) == 75, a.log.read_text()
    await eventually(fleet.owners, {})
    await back()
