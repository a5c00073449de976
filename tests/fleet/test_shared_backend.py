"""Two machines declare one and the same backend: each of its sessions is watched by one of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.daemon.test_backends import table
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents
from tests.standin.evolution import StandIn


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    made = await StandIn.open()
    yield made
    await made.close()


async def test_a_session_of_a_backend_that_two_machines_declare_is_adopted_once(
    tmp_path: Path, standin: StandIn, eventually: Eventually
) -> None:
    for name in ("line-1", "Shop One"):
        standin.add(name, "open")
    async with fleet_of_agents(["a"], tmp_path) as fleet:
        both = [fleet["a"], fleet.newcomer("b")]
        await both[0].stop()
        try:
            for agent in both:
                with agent.config.open("a") as file:
                    file.write("[backends]\ndiscover = 1\n" + table(standin))
                await agent.boot()
            adopted = {"line-1": 1, "Shop One": 1}
            await eventually(lambda: remotes(fleet), adopted, within=30)
            await eventually(lambda: all_connected(both, 2), within=30)
            # Each machine goes on to look for new ones, and says once what it may not adopt.
            await eventually(lambda: refused(both, "line-1"), 1, within=20)
            standin.add("line-2", "open")
            await eventually(lambda: refused(both, "line-2"), 1, within=20)
            assert await remotes(fleet) == {**adopted, "line-2": 1}
            await eventually(lambda: all_connected(both, 3), within=30)
            for id, name in (await fleet.owners()).items():
                said = f"cannot create {id}: machine {name} of the fleet has it already"
                logs = {agent.name: agent.log.read_text() for agent in both}
                assert [log.count(said) for at, log in logs.items() if at != name] == [1], logs
        finally:
            await both[1].close()


async def remotes(fleet: FleetOfAgents) -> dict[str, int]:
    remote = "settings ->> 'remote'"
    return dict(
        await fleet.rows(f"SELECT {remote}, count(*) FROM wa_agent.session GROUP BY {remote}")
    )


def refused(agents: list[FleetAgent], id: str) -> int:
    return sum(agent.log.read_text().count(f"cannot create {id}: machine") for agent in agents)


async def all_connected(agents: list[FleetAgent], count: int) -> bool:
    """The list of each machine has every session once."""
    for agent in agents:
        found = (await agent.do("GET", "/api/instances"))["instances"]
        if [it["connection_status"] for it in found] != ["CONNECTED"] * count:
            return False
    return True
