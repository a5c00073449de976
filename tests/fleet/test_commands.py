"""A command that was acknowledged while its owner was away: carried out at most once, whatever
dies, and its end can be read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import LASTING, FleetOfAgents, fleet_of_agents

MOMENTS = {
    "": "done",
    "command_taken": "unknown",
    "command_carried_out": "unknown",
    "command_ended": "done",
}
"""Where the owner is killed → the end that is read afterwards."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(("m1", "m2"), tmp_path, env=LASTING) as fleet:
        yield fleet


async def stored(fleet: FleetOfAgents, id: str) -> str:
    """m1 keeps the order to restart a session of m2, which is away; sent twice, it is one."""
    path, key = f"/api/instance/{id}/restart", {"Idempotency-Key": f"again {id}"}
    answers = [await fleet["m1"].ask("POST", path, headers=key) for _ in range(2)]
    assert [status for status, _ in answers] == [202, 202], answers
    first, second = (said["command"] for _, said in answers)
    assert first == second
    return str(first)


async def end_of(fleet: FleetOfAgents, command: str) -> Any:
    shown = await fleet["m1"].do("GET", f"/api/fleet/commands/{command}")
    return shown["state"] == "ended" and shown["outcome"]


async def restarts(fleet: FleetOfAgents, id: str, kind: str) -> int:
    """How often it was ordered ("operator") and begun ("action"), as the journal has it."""
    story = await fleet["m2"].story(id)
    return sum(entry == kind and "an operator asked for a" in said for entry, said in story)


@pytest.mark.slow
async def test_a_stored_command_is_carried_out_at_most_once_and_its_end_can_be_read(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    owner, ids = fleet["m2"], [f"s{number}" for number in range(len(MOMENTS))]
    await fleet.create(*ids, on="m2")
    await eventually(lambda: fleet.connected(ids), within=60)
    await eventually(fleet.know_each_other, within=30)
    for id, (moment, end) in zip(ids, MOMENTS.items(), strict=True):
        # Back within its lease: a restart of a session whose worker ended would be a start.
        await eventually(owner.has_just_renewed, within=30)
        await owner.kill()
        command = await stored(fleet, id)
        dies = {"WA_FAILPOINT": f"{moment}:kill"} if moment else {}
        await owner.start({**owner.env, **dies}, ready=not moment)
        if moment:
            assert owner.process is not None
            await eventually(lambda: owner.process.returncode == -9, within=30)
            await owner.boot()
        await eventually(lambda command=command: end_of(fleet, command), end, within=60)
        await eventually(lambda: fleet.connected(ids), within=60)
        ordered = int(moment != "command_taken")
        assert await restarts(fleet, id, "operator") == ordered, (moment, await owner.story(id))
        await eventually(lambda id=id: restarts(fleet, id, "action"), ordered, within=20)
