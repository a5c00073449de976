"""The wall clock of a real PostgreSQL jumps: nothing starts early, nothing stays down."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.clock import boot_now
from agent.errors import Refused, TryLater
from agent.fleet.coordinator import Member
from agent.fleet.postgres.coordinator import PostgresCoordinator
from tests.conftest import Eventually
from tests.fleet.test_keeper import POLICY, Node, Three, all_run, knows_two, nowhere_twice, three
from tests.fleet.test_postgres import TTL, Fleet, fleet, machine, renewed
from tests.standin.clock import SteppedClock, stepped_clock
from tests.standin.postgres import Postgres, temporary_postgres

__all__ = ["fleet", "three"]

HOUR = 3600


@pytest.fixture(scope="module")
def clock() -> Iterator[SteppedClock]:
    with stepped_clock() as made:
        yield made


async def join(
    coordinator: PostgresCoordinator, place: str, folder: str = "1", renewals: int = 0
) -> Member | None:
    """None: refused, as another one may run as this machine."""
    try:
        told = replace(machine("a"), place=place, folder=folder, renewals=renewals)
        return await coordinator.join(told)
    except Refused as error:
        assert error.code == "machine_twice"
        return None


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


async def test_a_machine_that_boots_joins_within_a_ttl_though_the_database_lives_an_hour_ago(
    fleet: Fleet, clock: SteppedClock, eventually: Eventually
):
    before = fleet.coordinator()
    member = await join(before, "first boot")
    assert member is not None
    member = await renewed(before, member)
    clock.step(-HOUR)
    try:
        after, begun = fleet.coordinator(), boot_now()
        assert await join(after, "second boot", renewals=member.renewals) is None

        async def joined() -> bool:
            return await join(after, "second boot", renewals=member.renewals) is not None

        await eventually(joined, within=5 * TTL)
        assert boot_now() - begun >= TTL, "a copy would have run beside the first one"
        with pytest.raises(Refused):
            await before.renew(member, frozenset(), 0)
    finally:
        clock.step(0)


@pytest.mark.parametrize("other", [("another boot", "1"), ("first boot", "2")])
async def test_a_copy_of_a_machine_is_refused_though_the_database_lives_in_an_hour(
    fleet: Fleet, clock: SteppedClock, other: tuple[str, str]
):
    first, copy = fleet.coordinator(), fleet.coordinator()
    member = await join(first, "first boot")
    assert member is not None
    copied = member = await renewed(first, member)
    for _ in range(2):
        member = await renewed(first, member)
    clock.step(HOUR)
    try:
        end = boot_now() + 1.5 * TTL
        while boot_now() < end:
            assert await join(copy, *other, renewals=copied.renewals) is None
            member = await renewed(first, member)
            await asyncio.sleep(TTL / 10)
    finally:
        clock.step(0)


async def test_a_copy_that_watched_before_an_outage_of_the_database_watches_again_after_it(
    fleet: Fleet,
):
    """The first one goes on by promises meanwhile, and renews a moment after the copy asks."""
    first, copy = fleet.coordinator(), fleet.coordinator()
    member = await join(first, "first boot")
    assert member is not None
    await renewed(first, member)
    other = ("first boot", "folder of the copy")
    assert await join(copy, *other) is None
    await asyncio.sleep(1.2 * TTL)  # nobody reaches the database
    assert await join(copy, *other) is None
    await renewed(first, member)
    assert await join(copy, *other) is None


async def test_machines_go_on_without_a_dead_one_that_the_database_counts_as_alive(
    three: Three, fleet: Fleet, clock: SteppedClock, eventually: Eventually
):
    a, b, c = await begun(three, eventually)
    await a.kill()
    clock.step(-HOUR)
    try:
        await eventually(lambda: all_run([b, c]), within=10 * POLICY.ttl)
        await eventually(lambda: not {a.id} & (b.rivals | c.rivals), within=30)
        fleet.server.signal(signal.SIGSTOP)
        end = boot_now() + 2 * POLICY.ttl
        while boot_now() < end:
            assert all_run([b, c])
            await asyncio.sleep(0.1)
    finally:
        fleet.server.signal(signal.SIGCONT)
        clock.step(0)


async def test_a_loss_is_accepted_without_a_dead_machine_that_the_database_counts_as_alive(
    three: Three, fleet: Fleet, clock: SteppedClock, eventually: Eventually
):
    a, b, c = await begun(three, eventually)
    await a.kill()
    fleet.server.sql("UPDATE wa_agent.fleet SET halted = 'the test says so'")
    clock.step(-HOUR)
    try:
        fleet.server.sql(f"UPDATE wa_agent.machine SET told = 99 WHERE id <> {a.id}")
        coordinator = fleet.coordinator()
        coordinator.lapsed = b.keeper.takeovers.lapsed
        with pytest.raises(TryLater, match="a did not tell"):
            await coordinator.accept()
        await eventually(lambda: a.id in coordinator.lapsed(), within=30)
        dead = {it.name: it.alive for it in await coordinator.machines()}
        assert dead == {"a": False, "b": True, "c": True}
        await coordinator.accept()
        await eventually(lambda: all_run([b, c]), within=10 * POLICY.ttl)
    finally:
        clock.step(0)
