"""Agents that are killed and start again while the database is away: their sessions go on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.clock import boot_now
from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents
from tests.fleet.test_membership import holds

HERE, THERE = ["a1", "a2"], ["b1"]
ALL = HERE + THERE
TTL = 24.0
"""Many times what a restart takes on an idle machine: this test is about no race with the lease."""

pytestmark = pytest.mark.slow


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(
        ["a", "b"], tmp_path, env={"WA_AGENT_FLEET__TTL": f"{TTL}"}
    ) as fleet:
        await fleet.create(*HERE, on="a")
        await fleet.create(*THERE, on="b")
        yield fleet


async def test_sessions_of_agents_that_restart_without_the_database_keep_their_connection(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await eventually(lambda: fleet.connected(ALL), within=3 * TTL)
    await eventually(fleet.know_each_other, within=30)
    before = fleet.witness.connections()
    fleet.database.signal(signal.SIGSTOP)
    try:
        ended = boot_now() + TTL  # each lease that the database gave
        for name in ("a", "b"):
            agent = fleet[name]
            await agent.kill()
            await agent.boot()
            await eventually(lambda agent=agent: holds(agent), within=TTL)
        while boot_now() < ended:
            assert fleet.connected(ALL)
            assert len(fleet.witness.connections()) == len(before)
            await eventually(lambda: holds(fleet["a"]), within=TTL)
            await asyncio.sleep(0.25)
        status = await fleet["a"].fleet()
        assert not status["database"]["reachable"] and status["lease"]["by"] == "promises"
    finally:
        fleet.database.signal(signal.SIGCONT)
    await eventually(lambda: renews(fleet["a"]), within=30)
    await eventually(lambda: renews(fleet["b"]), within=30)
    assert fleet.connected(ALL)
    assert len(fleet.witness.connections()) == len(before)


async def renews(agent: FleetAgent) -> bool:
    return (await agent.fleet())["lease"]["by"] == "renewal"
