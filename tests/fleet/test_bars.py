"""What a fleet promises, on three real agents and a real PostgreSQL: see agent/fleet/README.md."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from itertools import combinations

import psutil
import pytest
import pytest_asyncio

from tests.conftest import Eventually
from tests.fleet.agents import TTL, FleetOfAgents, fleet_of_agents

MANY = [f"s{number}" for number in range(50)]
CONNECTED_AGAIN = TTL + 10.0
BUDGET = {"WA_AGENT_START__LOGINS": "3", "WA_AGENT_START__LOGIN_EVERY": "0.5"}
LATE = 2.0
"""Seconds by which a worker may begin after its turn, which is the turn of its login."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FleetOfAgents]:
    """Fifty sessions, all on m3."""
    place = tmp_path_factory.mktemp("fleet")
    async with fleet_of_agents(("m1", "m2", "m3"), place) as fleet:
        await fleet.create(*MANY, on="m3")
        yield fleet


async def is_well(fleet: FleetOfAgents) -> bool:
    connected = fleet.connected(MANY)
    return connected and await fleet.copied(MANY) and await fleet.know_each_other()


async def test_fifty_sessions_of_a_dead_machine_are_connected_again_within_a_ttl_and_ten_seconds(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await eventually(lambda: is_well(fleet), within=60)
    await fleet["m3"].lose_power()
    lost = time.monotonic()
    await eventually(lambda: not fleet.witness.connected())
    await eventually(lambda: fleet.connected(MANY), within=60)
    assert time.monotonic() - lost <= CONNECTED_AGAIN
    assert set((await fleet.owners()).values()) == {"m1", "m2"}

    # It comes back: its folders are retired, and it starts none of them.
    before = len(fleet.witness.connections())
    await fleet["m3"].boot()
    await eventually(lambda: is_well(fleet), within=60)
    sessions = fleet["m3"].state / "sessions"
    await eventually(lambda: [it.name for it in sessions.glob("s*")] == [])
    assert len(fleet.witness.connections()) == before


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_no_session_drops_while_the_database_is_away_and_all_agents_are_in_touch(
    fleet: FleetOfAgents, how: str, eventually: Eventually
) -> None:
    await eventually(lambda: is_well(fleet), within=60)
    before = fleet.witness.connected()
    if how == "frozen":
        fleet.database.signal(signal.SIGSTOP)
    else:
        fleet.database.kill()
    try:
        end = time.monotonic() + 2 * TTL
        while time.monotonic() < end:
            assert fleet.witness.connected() == before
            await asyncio.sleep(0.25)
    finally:
        if how == "frozen":
            fleet.database.signal(signal.SIGCONT)
        else:
            fleet.database.begin()
    await eventually(lambda: is_well(fleet), within=60)
    assert fleet.witness.connected() == before


async def test_three_machines_that_boot_together_keep_their_budgets_of_logins(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await eventually(lambda: is_well(fleet), within=60)
    await asyncio.gather(*(agent.lose_power() for agent in fleet.agents.values()))
    before = len(fleet.witness.connections())
    owners = await fleet.owners()
    for agent in fleet.agents.values():
        agent.env.update(BUDGET)
    await asyncio.gather(*(agent.boot() for agent in fleet.agents.values()))
    await eventually(lambda: is_well(fleet), within=90)
    assert await fleet.owners() == owners, "a boot moves nothing"
    logins = fleet.witness.connections()[before:]
    assert len(logins) == len(MANY)
    for name in set(owners.values()):
        # Of its process: how long that takes to its login is a matter of the busy machine.
        workers = [psutil.Process(it.pid) for it in logins if owners[it.session] == name]
        at = sorted(it.create_time() for it in workers)
        for (first, begun), (last, ended) in combinations(enumerate(at), 2):
            assert last - first + 1 <= 3 + (ended - begun + LATE) / 0.5 + 1
