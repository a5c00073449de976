"""A standby is promoted while the old primary lives: no session runs twice, and a machine that is
asked whether its lease holds is not taken over."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import pytest

from agent.clock import boot_now
from agent.core.fleet.takeover import Word
from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.peers import Reached
from agent.fleet.words import word_of
from tests.conftest import Eventually
from tests.fleet.test_keeper import (
    POLICY,
    TOLD,
    Node,
    Three,
    all_run,
    fleet,
    knows_two,
    nowhere_twice,
    server,
    three,
)
from tests.fleet.test_postgres import Fleet
from tests.standin.postgres import Postgres

__all__ = ["fleet", "server", "three"]


@pytest.fixture
def standby(server: Postgres) -> Iterator[Postgres]:
    standby = server.standby()
    try:
        yield standby
    finally:
        standby.end()


def asking(nodes: list[Node]) -> None:
    """As the agents do over their own addresses."""

    async def ask(row: Reached, _member: Member) -> Word:
        (other,) = [it for it in nodes if it.name == row.name]
        if not other._answers:
            raise OSError("no answer")
        return word_of(other.keeper)

    for node in nodes:
        node.keeper.takeovers.ask_word = ask


def lead(node: Node, server: Postgres) -> None:
    """Its address leads to that server from its next connection on."""
    node.coordinator._database._address = server.url.replace("owner@", "agent@")
    node.coordinator._database._drop()


async def test_with_two_primaries_no_session_runs_twice_and_nobody_is_taken_over(
    three: Three, fleet: Fleet, standby: Postgres, eventually: Eventually
) -> None:
    a, b, c = nodes = await three()
    asking(nodes)
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    written = "SELECT count(*) FROM wa_agent.copy"
    await eventually(lambda: standby.sql(written).strip() == "3", within=30)
    standby.sql("SELECT pg_promote()")
    for node in (b, c):
        lead(node, standby)
    told = {a.name: ["b", "c"], b.name: ["a"], c.name: ["a"]}
    await eventually(
        lambda: {it.name: it.keeper.takeovers.elsewhere for it in nodes} == told, within=60
    )
    end = time.monotonic() + 2 * POLICY.ttl
    while time.monotonic() < end:
        assert all_run(nodes)
        await asyncio.sleep(0.1)
    await c.kill()
    end = time.monotonic() + 2.5 * POLICY.ttl
    while time.monotonic() < end:
        assert nowhere_twice(nodes)
        await asyncio.sleep(0.1)
    assert a.running | b.running == {"s0", "s1"}, "what died stays down: each side would take it"
    # The old primary is stopped: its machine says what these records lack.
    lead(a, standby)
    await eventually(lambda: a.keeper.halted and b.keeper.halted, within=30)
    standby.sql(TOLD)

    async def accepted() -> bool:
        try:
            await b.coordinator.accept()
        except WaError:
            return False
        return True

    await eventually(accepted, within=30)
    await eventually(lambda: all_run([a, b]), within=60)
    assert not a.keeper.takeovers.elsewhere


async def test_a_machine_whose_row_stands_still_is_not_taken_over_while_it_answers(
    three: Three, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is, a ttl after its last word."""
    a, b, c = nodes = await three()
    asking(nodes)
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)

    async def ask(row: Reached, _member: Member, asker: Node) -> Word:
        if row.name != "c" or not says:
            raise OSError("no answer")
        told[asker.name] = boot_now()
        return Word(True)

    says, told = True, dict[str, float]()
    for node in (a, b):
        node.keeper.takeovers.ask_word = partial(ask, asker=node)
    await c.kill()
    end = time.monotonic() + 3 * POLICY.ttl
    while time.monotonic() < end:
        assert "s2" not in a.running | b.running
        await asyncio.sleep(0.1)
    says = False
    await eventually(lambda: all_run([a, b]), within=30)
    assert boot_now() >= min(told.values()) + POLICY.ttl  # either takes over, for any of both
