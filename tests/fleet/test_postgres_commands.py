"""Commands that wait for an owner: carried out at most once, whatever crosses or dies."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from agent.api.placement import still_placed
from agent.errors import NotFound, Refused, TryLater
from agent.fleet.coordinator import Member, NewSession
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.waiting import CommandRow
from agent.supervise.fleet.commands import Commands
from tests.fleet.test_postgres import Fleet, fleet, machine, server, two_machines

__all__ = ["fleet", "server"]


async def ask(
    coordinator: PostgresCoordinator,
    verb: str = "start",
    *,
    key: str = "",
    session: str = "shop",
    by: str = "ann",
    **arguments: Any,
) -> CommandRow:
    return await coordinator.add_command(
        str(uuid.uuid4()), session, verb, arguments, idempotency_key=key, asked_by=by
    )


async def take(coordinator: PostgresCoordinator, member: Member) -> list[str]:
    return [row.id for row in await coordinator.take_commands(member, 100)]


async def end_of(coordinator: PostgresCoordinator, id: str) -> tuple[str, str]:
    found = await coordinator.command(id)
    assert found is not None
    return found.state, found.outcome


async def test_the_owner_takes_a_command_and_any_machine_reads_its_end(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    kept = await ask(first, "start", why="morning")
    assert (kept.state, kept.machine, kept.arguments) == ("waiting", None, {"why": "morning"})
    assert (await second.renew(b, frozenset(), 0)).commands
    assert not (await first.renew(a, frozenset(), 0)).commands
    assert not await take(first, a), "it is not the owner"
    (taken,) = await second.take_commands(b, 100)
    assert (taken.id, taken.state, taken.machine) == (kept.id, "begun", b.id)
    assert await end_of(first, kept.id) == ("begun", "")
    assert not await first.end_command(a, kept.id, "done", {}), "it did not take it"
    assert await second.end_command(b, kept.id, "done", {"sentence": "it runs"})
    ended = await first.command(kept.id)
    assert ended is not None
    assert (ended.state, ended.outcome, ended.answer) == ("ended", "done", {"sentence": "it runs"})
    assert not await second.end_command(b, kept.id, "refused", {}), "it ended before"
    assert await first.command("1; DROP TABLE command") is None


async def test_takers_that_cross_take_each_command_once_and_in_order(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    asked = [(await ask(first)).id for _ in range(30)]
    takers = [second, *(fleet.coordinator() for _ in range(3))]
    rounds = [await asyncio.gather(*(it.take_commands(b, 3) for it in takers)) for _ in range(4)]
    batches = [[row.id for row in batch] for taken in rounds for batch in taken]
    assert sorted(id for batch in batches for id in batch) == sorted(asked)
    assert all(batch == sorted(batch, key=asked.index) for batch in batches)
    assert not await take(first, a)


async def test_a_command_that_another_process_takes_at_this_moment_is_left_to_it(fleet: Fleet):
    first, _, second, b = await two_machines(fleet)
    kept = await ask(first)
    async with await psycopg.AsyncConnection.connect(fleet.address) as crossing:
        await crossing.execute("SELECT wa_agent.take_commands(%s, %s, 9)", (b.id, b.epoch))
        assert not await take(second, b), "it waits for no machine"
    assert not await take(second, b)
    assert await end_of(first, kept.id) == ("begun", "")


async def test_a_command_of_a_session_that_moves_at_this_moment_goes_to_its_new_owner(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    kept = await ask(second)
    async with await psycopg.AsyncConnection.connect(fleet.address) as crossing:
        moving = "SELECT wa_agent.hand_over(%s, %s, %s, 'shop', %s, 'drain')"
        await crossing.execute(moving, (b.id, b.epoch, b.renewals, a.id))
        assert not await take(second, b)
    assert await take(first, a) == [kept.id]


@pytest.mark.parametrize("lost", ["away", "restarted", "taken over"])
async def test_a_machine_lost_between_beginning_and_end_leaves_an_unknown_end(
    fleet: Fleet, lost: str
):
    first, a, second, b = await two_machines(fleet)
    kept = await ask(first)
    assert await take(second, b) == [kept.id]
    new = b
    if lost == "away":
        fleet.server.sql(f"UPDATE wa_agent.machine SET alive_until = now() WHERE id = {b.id}")
    elif lost == "restarted":
        new = await fleet.coordinator().join(machine("b"))
    else:
        assert await first.take_over(a, b.id, b.epoch, b.renewals, {"shop": a.id})
    assert await end_of(first, kept.id) == ("ended", "unknown")
    assert not await take(first, a)
    assert not await take(second, new)
    assert await second.end_command(b, kept.id, "done", {}), "it lived after all"
    assert await end_of(first, kept.id) == ("ended", "done")


async def test_an_idempotency_key_is_one_command_of_the_whole_fleet(fleet: Fleet):
    first, _, second, b = await two_machines(fleet)
    crossing = [first, second, *(fleet.coordinator() for _ in range(4))]
    ids = {it.id for it in await asyncio.gather(*(ask(it, key="k", x=1) for it in crossing))}
    assert len(ids) == 1
    await second.create(b, NewSession("bar", "sandbox"), b.id)
    for other in (
        ask(first, "stop", key="k", x=1),
        ask(first, key="k", x=2),
        ask(first, key="k", x=1, session="bar"),
        ask(first, key="k", x=1, by="bob"),
    ):
        with pytest.raises(Refused) as refused:
            await other
        assert refused.value.code == "idempotency_key_reused"
    assert await take(second, b) == list(ids)
    assert (await ask(first, key="k", x=1)).state == "begun", "asked again, it is what it is"
    assert not await take(second, b)


async def test_commands_end_with_their_session_and_with_their_day(fleet: Fleet):
    first, _, second, b = await two_machines(fleet)
    with pytest.raises(NotFound):
        await ask(first, session="bar")
    old, late = await ask(first), await ask(first, key="k")
    fleet.server.sql(
        f"UPDATE wa_agent.command SET asked_at = now() - interval '25 hours' WHERE id = '{old.id}'"
    )
    assert await take(second, b) == [late.id]
    assert await end_of(first, old.id) == ("ended", "expired")
    waiting = await ask(first)
    assert await second.delete(b, "shop", 0)
    assert await end_of(first, waiting.id) == ("ended", "deleted")


async def test_only_so_many_commands_wait_for_a_session(fleet: Fleet):
    first, _, second, b = await two_machines(fleet)
    for _ in range(100):
        await ask(first)
    with pytest.raises(TryLater) as refused:
        await ask(first)
    assert refused.value.code == "too_many_commands"
    assert len(await take(second, b)) == 100
    fleet.server.sql("UPDATE wa_agent.command SET asked_at = now() - interval '49 hours'")
    newest = await ask(first)
    assert await end_of(first, newest.id) == ("waiting", "")
    fleet.server.sql("DO $$ BEGIN ASSERT (SELECT count(*) FROM wa_agent.command) = 1; END $$")


async def test_a_command_whose_taking_lost_its_answer_is_carried_out_once(fleet: Fleet):
    first, _, second, b = await two_machines(fleet)
    kept = await ask(first)

    class Lossy:
        """The first answer is lost on its way."""

        end_command = second.end_command

        async def take_commands(self, *asked: Any) -> Sequence[CommandRow]:
            taken = await second.take_commands(*asked)
            if not lost:
                lost.append(taken[0].id)
                raise TryLater("the connection was cut", code="fleet_database")
            return taken

    lost: list[str] = []
    coordinator: Any = Lossy()
    orders: Any = None
    commands = Commands(orders, dict, coordinator, lambda: b, still_placed)
    assert await commands._taken() == []
    assert lost == [kept.id]
    (row,) = await commands._taken()
    assert row.id == kept.id
    assert await commands._taken() == [], "this process has it"
    await commands._end(row, "done", "carried out")
    assert await commands._taken() == []
    assert await end_of(first, kept.id) == ("ended", "done")
