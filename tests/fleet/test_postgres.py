"""The coordinator against a real PostgreSQL: who owns a session, whatever crosses or gets lost."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import psycopg
import pytest

from agent.errors import ConfigError, Refused, TryLater
from agent.fleet.coordinator import Machine, Member, NewSession
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare, set_ttl
from tests.standin.postgres import Postgres, temporary_postgres
from tests.waiting import Pauses

TTL = 6.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        server.sql("CREATE ROLE agent LOGIN")
        yield server


@pytest.fixture
async def fleet(server: Postgres) -> AsyncIterator["Fleet"]:
    server.sql("DROP SCHEMA IF EXISTS wa_agent CASCADE")
    await prepare(server.url)
    server.sql("GRANT wa_agent_machine TO agent")
    fleet = Fleet(server)
    yield fleet
    for coordinator in fleet.opened:
        await coordinator.close()


class Fleet:
    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.address = server.url.replace("owner@", "agent@")
        self.opened: list[PostgresCoordinator] = []

    def coordinator(self, timeout: float = 20.0) -> PostgresCoordinator:
        self.opened.append(PostgresCoordinator(self.address, TTL, timeout))
        return self.opened[-1]

    async def joined(self, name: str) -> tuple[PostgresCoordinator, Member]:
        coordinator = self.coordinator()
        return coordinator, await coordinator.join(machine(name))


def machine(name: str, installation: str = "") -> Machine:
    installation = installation or str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Machine(name, installation, engines=frozenset({"sandbox"}))


async def renewed(coordinator: PostgresCoordinator, member: Member, *rivals: int) -> Member:
    answer = await coordinator.renew(member, frozenset(rivals), 0)
    assert answer.accepted
    return replace(member, renewals=answer.renewals[member.id])


async def owners(fleet: Fleet) -> dict[str, int]:
    async with await psycopg.AsyncConnection.connect(fleet.server.url) as connection:
        found = await connection.execute("SELECT id, machine FROM wa_agent.session")
        return dict(await found.fetchall())


async def two_machines(
    fleet: Fleet,
) -> tuple[PostgresCoordinator, Member, PostgresCoordinator, Member]:
    """`b` owns one session, and named `a` in its last renewal."""
    first, a = await fleet.joined("a")
    second, b = await fleet.joined("b")
    assert await second.create(b, NewSession("shop", "sandbox"), b.id)
    assert await second.store_copy(b, "shop", 0, b"files")
    return first, await renewed(first, a), second, await renewed(second, b, a.id)


async def test_a_takeover_moves_the_sessions_and_ends_the_epoch(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    assert [it.id for it in await first.movable(b.id)] == ["shop"]
    assert await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})
    assert await owners(fleet) == {"shop": a.id}

    answer = await second.renew(b, frozenset(), 0)
    assert not answer.accepted
    assert answer.epoch == b.epoch + 1
    assert not await second.store_copy(b, "shop", 0, b"late words of the old owner")
    stored = await first.stored("shop")
    assert stored is not None
    assert stored.packed == b"files"


async def test_a_machine_that_renewed_meanwhile_is_not_taken_over(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    await renewed(second, b, a.id)
    assert not await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})
    assert await owners(fleet) == {"shop": b.id}


async def test_only_a_machine_that_was_named_takes_over_until_an_operator_says_so(fleet: Fleet):
    first, _, _, b = await two_machines(fleet)
    third, c = await fleet.joined("c")
    c = await renewed(third, c)
    assert not await third.take_over(c, b.id, b.epoch, b.renewals, {"shop": c.id})
    assert await first.forget(c, b.id, b.renewals)
    assert await third.take_over(c, b.id, b.epoch, b.renewals, {"shop": c.id})


async def test_a_machine_that_renewed_meanwhile_is_not_forgotten(fleet: Fleet):
    _, a, second, b = await two_machines(fleet)
    third, c = await fleet.joined("c")
    later = await renewed(second, b, a.id)
    assert not await third.forget(c, b.id, b.renewals)
    assert not await third.take_over(c, b.id, later.epoch, later.renewals, {"shop": c.id})
    assert await owners(fleet) == {"shop": b.id}


async def test_of_two_takeovers_at_once_one_happens(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    third, c = await fleet.joined("c")
    c, b = await renewed(third, c), await renewed(second, b, a.id, c.id)
    done = await asyncio.gather(
        first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id}),
        third.take_over(c, b.id, b.epoch, b.renewals, {"shop": c.id}),
    )
    assert sorted(done) == [False, True]


async def test_two_machines_that_take_each_other_over_wait_for_nothing(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    a = await renewed(first, a, b.id)
    done = await asyncio.gather(
        first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id}),
        second.take_over(b, a.id, a.epoch, a.renewals, {}),
    )
    assert done.count(True) <= 1


async def test_a_machine_that_was_taken_over_takes_no_other_over(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    a = await renewed(first, a, b.id)
    assert await second.take_over(b, a.id, a.epoch, a.renewals, {})
    assert not await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})


async def test_a_hand_over_is_void_once_its_owner_renewed(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    later = await renewed(second, b, a.id)
    assert not await second.hand_over(b, "shop", a.id, "drain"), "it was sent before the renewal"
    assert await second.hand_over(later, "shop", a.id, "drain")
    assert not await second.hand_over(later, "shop", b.id, "drain"), "it is not its own any more"
    (owned,) = await first.owned(a)
    assert (owned.id, owned.epoch) == ("shop", 1)


async def test_a_machine_learns_that_its_sessions_changed(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    before = await first.renew(a, frozenset(), 0)
    assert await second.hand_over(b, "shop", a.id, "drain")
    after = await first.renew(replace(a, renewals=before.renewals[a.id]), frozenset(), 0)
    assert after.changes == before.changes + 1
    assert after.generation == before.generation + 1
    assert after.alive == {b.id}


@pytest.mark.parametrize("lost", ["generation", "renewals"])
async def test_a_database_that_lost_records_changes_no_owner_until_it_is_accepted(
    fleet: Fleet, lost: str
):
    first, a, second, b = await two_machines(fleet)
    fleet.server.sql(
        "UPDATE wa_agent.fleet SET generation = 0"
        if lost == "generation"
        else f"UPDATE wa_agent.machine SET renewals = 0 WHERE id = {a.id}"
    )
    answer = await first.renew(a, frozenset(), 1)
    assert "lost" in answer.halted
    assert answer.accepted, "what runs goes on"
    assert not await second.hand_over(b, "shop", a.id, "drain")
    assert not await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})
    for coordinator, member in ((first, a), (second, b)):
        await coordinator.tell(member, [], {})
    await first.accept()
    assert await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})


async def test_a_second_machine_of_the_same_name_is_refused(fleet: Fleet):
    _, a = await fleet.joined("a")
    other = fleet.coordinator()
    with pytest.raises(ConfigError, match="another machine") as refused:
        await other.join(replace(machine("a"), installation=str(uuid.uuid4())))
    assert refused.value.code == "machine_name_taken"
    assert await other.join(machine("a")) == a, "the same machine joins again and is itself"


async def test_machines_with_another_ttl_take_no_part(fleet: Fleet):
    """One that waits less long would take sessions that another one still runs."""
    first, a = await fleet.joined("a")
    a = await renewed(first, a)
    shorter = PostgresCoordinator(fleet.address, TTL - 1, 20.0)
    fleet.opened.append(shorter)
    with pytest.raises(ConfigError, match="ttl = 6, this one has 5") as refused:
        await shorter.join(machine("b"))
    assert refused.value.code == "fleet_ttl"
    with pytest.raises(Refused, match="machines are running"):
        await set_ttl(fleet.server.url, TTL - 1)
    fleet.server.sql("UPDATE wa_agent.machine SET alive_until = now()")
    await set_ttl(fleet.server.url, TTL - 1)
    await shorter.join(machine("b"))
    with pytest.raises(ConfigError):
        await first.join(machine("a"))


async def test_tables_are_made_once(fleet: Fleet):
    await two_machines(fleet)
    await asyncio.gather(*(prepare(fleet.server.url) for _ in range(3)))
    assert await owners(fleet) != {}


async def test_a_frozen_database_costs_a_call_its_deadline_and_no_more(
    fleet: Fleet, pauses: Pauses
):
    coordinator = fleet.coordinator()
    a = await coordinator.join(machine("a"))
    patience, coordinator._database._timeout = coordinator._database._timeout, 1.0
    fleet.server.signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        with pytest.raises(TryLater) as refused:
            await coordinator.renew(a, frozenset(), 0)
        took = time.monotonic() - begun - pauses.total
        assert took < 4, "psycopg alone waits five seconds to cancel a call"
        assert refused.value.code == "fleet_database"
    finally:
        fleet.server.signal(signal.SIGCONT)
    coordinator._database._timeout = patience
    after = await renewed(coordinator, a)
    assert after.renewals >= a.renewals + 1


async def test_a_connection_that_was_cut_is_made_again(fleet: Fleet):
    coordinator, a = await fleet.joined("a")
    a = await renewed(coordinator, a)
    fleet.server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'agent'"
    )
    with pytest.raises(TryLater):
        await coordinator.renew(a, frozenset(), 0)
    assert (await renewed(coordinator, a)).renewals == a.renewals + 1


async def test_an_error_repeats_no_password(fleet: Fleet):
    address = f"postgresql://agent:hunter2@127.0.0.1:{os.getpid() % 1000 + 1}/whatsapp"
    with pytest.raises(TryLater) as refused:
        await PostgresCoordinator(address, TTL, 5.0).machines()
    assert "hunter2" not in str(refused.value)
