"""A database that refuses what it is asked, and says nothing about a machine: none stops."""

import asyncio
import time

import pytest

from tests.conftest import Eventually
from tests.fleet.test_keeper import POLICY, Three, all_run, fleet, knows_two, server, three
from tests.fleet.test_postgres import Fleet

__all__ = ["fleet", "server", "three"]

CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'agent'"
REFUSALS = {
    "the right to renew is gone": (
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA wa_agent FROM wa_agent_machine",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA wa_agent TO wa_agent_machine",
    ),
    "the right to read is gone": (
        "REVOKE SELECT ON ALL TABLES IN SCHEMA wa_agent FROM wa_agent_machine",
        "GRANT SELECT ON ALL TABLES IN SCHEMA wa_agent TO wa_agent_machine",
    ),
    "the tables are for newer programs": (
        "UPDATE wa_agent.fleet SET compatible_from = 99",
        "UPDATE wa_agent.fleet SET compatible_from = 1",
    ),
    "the function is gone": (
        "ALTER FUNCTION wa_agent.renew(integer, bigint, bigint, integer[], bigint,"
        " double precision, text, bigint, bigint, text) RENAME TO renews",
        "ALTER FUNCTION wa_agent.renews RENAME TO renew",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_while_the_database_refuses_the_machines_all_go_on(
    three: Three, fleet: Fleet, eventually: Eventually, what: str
) -> None:
    a, _, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    begin, end = REFUSALS[what]
    fleet.server.sql(begin)
    fleet.server.sql(CONNECTIONS)
    await eventually(lambda: all(it.keeper.lease_by == "promises" for it in nodes), within=30)
    await a.kill()
    await a.begin()  # an agent that restarts meanwhile goes on as well
    until = time.monotonic() + 1.5 * POLICY.ttl
    while time.monotonic() < until:
        assert all_run(nodes)
        await asyncio.sleep(0.1)
    fleet.server.sql(end)
    await eventually(lambda: all(it.keeper.lease_by == "renewal" for it in nodes), within=30)
    assert all_run(nodes)
    await c.kill()
    await eventually(lambda: all_run([a, nodes[1]]), within=30)


async def test_reads_that_are_refused_end_no_session_of_a_machine_that_is_renewed(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    monkeypatch.setattr("agent.fleet.takeovers.READ_EVERY", 0.0)
    fleet.server.sql("REVOKE SELECT ON wa_agent.session FROM wa_agent_machine")
    await eventually(lambda: all("denied" in it.keeper.database_error for it in nodes), within=30)
    until = time.monotonic() + 1.5 * POLICY.ttl
    while time.monotonic() < until:
        assert all_run(nodes)
        await asyncio.sleep(0.1)
    assert all(it.keeper.lease_by == "renewal" for it in nodes)
