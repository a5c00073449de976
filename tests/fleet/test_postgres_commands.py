"""Commands that wait for an owner: carried out at most once, whatever crosses or dies."""

import uuid
from typing import Any

from agent.fleet.coordinator import CommandRow, Member
from agent.fleet.postgres.coordinator import PostgresCoordinator
from tests.fleet.test_postgres import Fleet, fleet, server, two_machines

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


async def begun(coordinator: PostgresCoordinator, member: Member) -> list[CommandRow]:
    return list(await coordinator.take_commands(member, 100))


async def test_the_owner_takes_a_command_and_any_machine_reads_its_end(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    kept = await ask(first, "start", why="morning")
    assert (kept.state, kept.machine, kept.arguments) == ("waiting", None, {"why": "morning"})
    assert (await second.renew(b, frozenset(), 0)).commands
    assert not await begun(first, a), "it is not the owner"
    (taken,) = await begun(second, b)
    assert (taken.id, taken.state, taken.machine) == (kept.id, "begun", b.id)
    assert not await first.end_command(a, kept.id, "done", {}), "it did not take it"
    assert await second.end_command(b, kept.id, "done", {"sentence": "it runs"})
    ended = await first.command(kept.id)
    assert ended is not None
    assert (ended.state, ended.outcome, ended.answer) == ("ended", "done", {"sentence": "it runs"})
    assert not await second.end_command(b, kept.id, "refused", {}), "it ended before"
