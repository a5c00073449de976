"""A standby takes the database over: machines say what it lacks before an owner may change."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from agent.fleet.postgres.coordinator import open_coordinator
from tests.conftest import Eventually
from tests.fleet.test_postgres import Fleet, fleet, machine, server
from tests.standin.postgres import Postgres

__all__ = ["fleet", "server"]

TTL = 1.0
CAUGHT_UP = "SELECT pg_last_wal_replay_lsn() >= %s AND now() > pg_postmaster_start_time() + %s"


@pytest.fixture
def standby(server: Postgres) -> Iterator[Postgres]:
    standby = server.standby()
    try:
        yield standby
    finally:
        standby.end()


async def test_a_standby_that_was_started_long_ago_is_not_settled_when_it_is_promoted(
    fleet: Fleet, standby: Postgres, eventually: Eventually
) -> None:
    coordinator = open_coordinator(fleet.address, TTL, 20.0)
    promoted = open_coordinator(standby.url.replace("owner@", "agent@"), TTL, 20.0)
    fleet.opened += [coordinator, promoted]
    member = await coordinator.join(machine("a"))

    async def settled() -> bool:
        nonlocal member
        answer = await coordinator.renew(member, frozenset(), 0)
        assert answer.accepted and not answer.halted
        member = replace(member, renewals=answer.renewals[member.id])
        return answer.settled

    await eventually(settled, within=10)
    async with await psycopg.AsyncConnection.connect(fleet.server.url) as connection:
        found = await connection.execute("SELECT pg_current_wal_lsn()")
        ((written,),) = await found.fetchall()

    async def caught_up() -> bool:
        async with await psycopg.AsyncConnection.connect(standby.url) as connection:
            found = await connection.execute(CAUGHT_UP, (written, f"{2 * TTL} s"))
            return (await found.fetchall())[0][0]

    await eventually(caught_up, within=20)
    fleet.server.kill()
    standby.sql("SELECT pg_promote()")
    coordinator = promoted
    assert not await settled(), "its records may be older, and each machine must say so first"
    await eventually(settled, within=10)
