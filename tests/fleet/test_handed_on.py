"""A session that its new owner cannot put on its disk: another machine gets it, by itself."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import LASTING, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.fleet.test_owners import here, owned_by, waits

ROOM, NO_ROOM = "size=900m", "size=150m"


class Disk:
    """The state of machine b, on a file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def becomes(self, options: str) -> None:
        command = ("mount", "-o", f"remount,{options}", self.folder)
        await asyncio.to_thread(subprocess.run, command, check=True)


@pytest.fixture
def disk(tmp_path: Path, small_disk: Callable[[str], Path]) -> Disk:
    disk = small_disk(ROOM)
    (tmp_path / "b").symlink_to(disk)
    return Disk(disk)


@pytest.fixture
async def fleet(disk: Disk, tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b", "c"], tmp_path, env=LASTING) as fleet:
        yield fleet


async def fills_as_it_gets(
    fleet: FleetOfAgents, disk: Disk, id: str, eventually: Eventually
) -> None:
    """a gives the session to b, whose disk is full before b has heard of it."""
    await eventually(lambda: fleet.connected([id]), within=30)
    await eventually(lambda: fleet.copied([id]), within=30)
    await eventually(fleet.know_each_other, within=30)
    await eventually(fleet["b"].has_just_renewed, within=20)
    fleet["b"].freeze()
    await fleet["a"].do("POST", f"/api/instance/{id}/move", {"to": "b"})
    await eventually(lambda: owned_by(fleet, "b", id), within=5)
    await disk.becomes(NO_ROOM)
    fleet["b"].thaw()


def is_paired_in(agent: FleetAgent, id: str) -> bool:
    return (agent.state / "sessions" / id / "session" / "sandbox.json").is_file()


async def test_a_session_that_finds_a_full_disk_goes_back_to_the_machine_that_gave_it(
    fleet: FleetOfAgents, disk: Disk, eventually: Eventually
) -> None:
    await fleet.create("x", on="a")
    await fills_as_it_gets(fleet, disk, "x", eventually)
    why = "the disk has"
    for machine in "ab":
        await eventually(lambda machine=machine: waits(fleet[machine], "x", why), within=30)
    await eventually(lambda: owned_by(fleet, "a", "x"), within=40)
    await eventually(lambda: fleet.connected(["x"]), within=30)
    assert is_paired_in(fleet["a"], "x")
    assert await here(fleet["b"], [])
    placed = await fleet["a"].do("GET", "/api/instance/x/fleet")
    assert placed["why"] == "b could not place its files"
    for machine in "abc":
        await eventually(lambda machine=machine: nothing_waits(fleet[machine]), within=20)


async def test_it_goes_to_a_third_machine_where_the_giver_is_drained_and_waits_for_one_until_then(
    fleet: FleetOfAgents, disk: Disk, eventually: Eventually
) -> None:
    a, b, c = fleet["a"], fleet["b"], fleet["c"]
    await fleet.create("x", on="a")
    await c.do("POST", "/api/fleet/machines/c/drain")
    await fills_as_it_gets(fleet, disk, "x", eventually)
    await a.do("POST", "/api/fleet/machines/a/drain")
    nowhere = "no other machine can run it: a, c is drained"
    await eventually(lambda: waits(b, "x", nowhere), within=60)
    await eventually(lambda: waits(a, "x", nowhere), within=20)
    assert await fleet.copied(["x"]) and await owned_by(fleet, "b", "x")
    await c.do("POST", "/api/fleet/machines/c/undrain")
    await eventually(lambda: owned_by(fleet, "c", "x"), within=30)
    await eventually(lambda: fleet.connected(["x"]), within=30)


async def nothing_waits(agent: FleetAgent) -> bool:
    return (await agent.fleet())["waiting"] == []
