"""The wall clock of a real PostgreSQL jumps: nothing starts early, nothing stays down."""

from collections.abc import Iterator

import pytest

from agent.clock import boot_now
from tests.conftest import Eventually
from tests.fleet.test_keeper import POLICY, Node, Three, all_run, knows_two, nowhere_twice, three
from tests.fleet.test_postgres import Fleet, fleet
from tests.standin.clock import SteppedClock, stepped_clock
from tests.standin.postgres import Postgres, temporary_postgres

__all__ = ["fleet", "three"]

HOUR = 3600


@pytest.fixture(scope="module")
def clock() -> Iterator[SteppedClock]:
    with stepped_clock() as made:
        yield made


@pytest.fixture(scope="module")
def server(clock: SteppedClock) -> Iterator[Postgres]:
    with temporary_postgres(inside=clock.command) as server:
        server.sql("CREATE ROLE agent LOGIN")
        yield server


async def begun(three: Three, eventually: Eventually) -> list[Node]:
    nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    return nodes


async def test_a_machine_is_replaced_while_the_database_lives_an_hour_ago(
    three: Three, clock: SteppedClock, eventually: Eventually
):
    a, b, c = await begun(three, eventually)
    clock.step(-HOUR)
    try:
        await a.kill()
        await eventually(lambda: all_run([b, c]), within=10 * POLICY.ttl)
    finally:
        clock.step(0)


async def test_no_session_goes_to_a_dead_machine_that_the_database_counts_as_alive(
    three: Three, clock: SteppedClock, eventually: Eventually
):
    a, b, c = await begun(three, eventually)
    clock.step(HOUR)
    try:
        seen = {it: it.keeper.member.renewals for it in (a, b, c)}
        await eventually(
            lambda: all(it.keeper.member.renewals > n + 1 for it, n in seen.items()), within=30
        )
        await eventually(lambda: all(map(knows_two, seen)), within=30)
    finally:
        clock.step(0)
    await a.kill()
    await b.kill()
    await eventually(lambda: all_run([c]), within=10 * POLICY.ttl)


async def test_a_database_that_has_just_begun_is_settled_after_a_ttl_though_its_clock_jumps(
    three: Three, fleet: Fleet, clock: SteppedClock, eventually: Eventually
):
    nodes = a, _, _ = await begun(three, eventually)
    await eventually(lambda: a.keeper.settled, within=30)
    before = a.keeper._settling.server
    fleet.server.kill()
    killed = boot_now()
    fleet.server.begin()
    clock.step(HOUR)
    try:
        await eventually(lambda: a.keeper._settling.server != before, within=30)
        await eventually(lambda: a.keeper.settled, within=30)
        assert boot_now() - killed >= POLICY.ttl
        assert nowhere_twice(nodes)
    finally:
        clock.step(0)
