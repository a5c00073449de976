"""A machine with sessions joins a fleet and leaves it again; nothing starts blindly in between."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents


@asynccontextmanager
async def newcomer(fleet: FleetOfAgents, name: str, place: Path) -> AsyncIterator["Newcomer"]:
    agent = Newcomer(fleet, name, place)
    try:
        yield agent
    finally:
        await agent.close()


class Newcomer(FleetAgent):
    """A machine whose agent.toml has [fleet] only when it is told so."""

    def __init__(self, fleet: FleetOfAgents, name: str, place: Path) -> None:
        joined = fleet.machine(name, place)
        super().__init__(name, joined.config.parent, joined.config, ())
        self.with_fleet = self.config.read_text()

    async def run(self, *, fleet: bool, ready: bool = True) -> None:
        alone = self.with_fleet.partition("[fleet]")[0]
        self.config.write_text(self.with_fleet if fleet else alone)
        await self.start(ready=ready)

    def leased(self, id: str) -> bool:
        file = self.state / "sessions" / id / "instance.json"
        return bool(json.loads(file.read_text())["leased"])


async def test_a_machine_joins_with_its_sessions_and_leaves_with_them(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a"], tmp_path) as fleet, newcomer(fleet, "c", tmp_path) as c:
        await c.run(fleet=False)
        await fleet.create_at(c, "x", "y")
        await eventually(lambda: fleet.connected(["x", "y"]), within=20)
        await c.stop()

        await c.run(fleet=True)
        await eventually(lambda: fleet.connected(["x", "y"]), within=30)
        assert await fleet.owners() == {"x": "c", "y": "c"}
        assert c.leased("x")
        await fleet.refuses_a_machine_with(tmp_path, "x")
        await c.stop()

        await c.run(fleet=False)
        view = await c.do("GET", "/api/instance/x")
        assert view["connection_status"] != "CONNECTED"
        await eventually(lambda: waits_for_its_lease(c, "x"), within=10)
        assert "put [fleet] back" in c.log.read_text().lower()
        await c.stop()

        await c.run(fleet=True)
        await eventually(lambda: fleet.connected(["x", "y"]), within=30)
        await eventually(lambda: knows_its_own(c), within=10)
        before = fleet.witness.connected()
        await c.do("POST", "/api/fleet/leave")
        assert await fleet.owners() == {}
        assert not c.leased("x")
        assert fleet.witness.connected() == before
        await c.stop()

        await c.run(fleet=False)
        await eventually(lambda: fleet.connected(["x", "y"]), within=20)


async def waits_for_its_lease(agent: FleetAgent, id: str) -> bool:
    return bool((await agent.do("GET", f"/api/instance/{id}"))["reason"] == "no_lease")


async def knows_its_own(agent: FleetAgent) -> bool:
    return bool((await agent.fleet())["settled"])
