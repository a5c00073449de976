"""A machine whose disk is nearly full gets no session, and gets them again when it has room."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Eventually
from tests.fleet.agents import FleetOfAgents, fleet_of_agents
from tests.fleet.test_owners import owned_by


async def test_a_machine_whose_disk_is_nearly_full_gets_no_session(
    tmp_path: Path, small_disk: Callable[[str], Path], eventually: Eventually
) -> None:
    disk = small_disk("size=150m")
    (tmp_path / "b").symlink_to(disk)
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        a = fleet["a"]
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=30)
        await eventually(fleet.know_each_other, within=30)
        await eventually(lambda: capacities(fleet), {"a": 100, "b": 0}, within=20)
        status, answer = await a.answer("POST", "/api/instance/x/move", {"to": "b"})
        assert (status, answer["error"]) == (409, "no_machine")
        assert "b has no room for another session" in answer["message"]
        assert "the fleet gives this machine no session: the disk has" in fleet["b"].log.read_text()
        larger = ("mount", "-o", "remount,size=900m", disk)
        await asyncio.to_thread(subprocess.run, larger, check=True)
        await eventually(lambda: capacities(fleet), {"a": 100, "b": 100}, within=20)
        await a.do("POST", "/api/instance/x/move", {"to": "b"})
        await eventually(lambda: owned_by(fleet, "b", "x"), within=20)
        await eventually(lambda: fleet.connected(["x"]), within=30)


async def capacities(fleet: FleetOfAgents) -> dict[str, int]:
    return dict(await fleet.rows("SELECT name, capacity FROM wa_agent.machine"))
