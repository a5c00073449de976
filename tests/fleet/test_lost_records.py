"""The database goes on as a copy that lost the last seconds, and in them a session moved."""

import time
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import TTL, fleet_of_agents


@pytest.mark.slow
async def test_a_session_whose_move_was_lost_goes_back_once_the_loss_is_accepted(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(("a", "b"), tmp_path) as fleet:
        await fleet.create("x", on="a")
        await eventually(lambda: fleet.connected(["x"]), within=60)
        await eventually(fleet.know_each_other, within=30)
        await eventually(lambda: fleet.copied(["x"]), within=30)
        copy = fleet.database.back_up()
        await fleet["a"].do("POST", "/api/instance/x/move", {"to": "b"})
        await eventually(fleet.owners, {"x": "b"}, within=30)
        await eventually(lambda: len(fleet.witness.connections("x")) == 2, within=30)
        fleet.database.replace_by(copy)

        async def halted() -> bool:
            return all([(await it.fleet())["halted"] for it in fleet.agents.values()])

        await eventually(halted, within=30)
        assert fleet.connected(["x"]), "it goes on where it runs"
        assert len(fleet.witness.connections("x")) == 2
        asked = time.time()
        await fleet["a"].do("POST", "/api/fleet/accept", {"confirm": True})
        accepted = time.time()
        await eventually(lambda: len(fleet.witness.connections("x")) == 3, within=60)
        await eventually(lambda: fleet.connected(["x"]), within=30)
        assert await fleet.owners() == {"x": "a"}
        _, there, here = fleet.witness.connections("x")
        assert there.last < accepted + TTL / 2, "it ends at once where it is not owned any more"
        assert here.begun > asked + TTL, "and begins only when that is certain"
