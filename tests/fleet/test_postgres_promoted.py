"""Older records take the place of the database: machines say what they lack before an owner may
change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from agent.fleet.coordinator import Member
from agent.fleet.postgres.coordinator import PostgresCoordinator
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


class Joined:
    """One machine, and what its next renewal says."""

    def __init__(self, coordinator: PostgresCoordinator, member: Member) -> None:
        self.coordinator, self.member = coordinator, member

    async def settled(self) -> bool:
        answer = await self.coordinator.renew(self.member, frozenset(), 0)
        assert answer.accepted and not answer.halted
        self.member = replace(self.member, renewals=answer.renewals[self.member.id])
        return answer.settled


async def joined(fleet: Fleet) -> Joined:
    coordinator = PostgresCoordinator(fleet.address, TTL, 20.0)
    fleet.opened.append(coordinator)
    return Joined(coordinator, await coordinator.join(machine("a")))


async def test_tables_that_were_read_in_from_a_dump_settle_first(
    fleet: Fleet, eventually: Eventually, tmp_path: Path
) -> None:
    a = await joined(fleet)
    await eventually(a.settled, within=10)
    dump = fleet.server.dump(tmp_path / "dump.sql").read_text()
    fleet.server.sql("DROP SCHEMA wa_agent CASCADE")
    fleet.server.sql(dump)
    assert not await a.settled()
    await eventually(a.settled, within=10)


async def test_a_standby_that_was_started_long_ago_is_not_settled_when_it_is_promoted(
    fleet: Fleet, standby: Postgres, eventually: Eventually
) -> None:
    a = await joined(fleet)
    await eventually(a.settled, within=10)
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
    a.coordinator = PostgresCoordinator(standby.url.replace("owner@", "agent@"), TTL, 20.0)
    fleet.opened.append(a.coordinator)
    assert not await a.settled(), "its records may be older, and each machine must say so first"
    await eventually(a.settled, within=10)
