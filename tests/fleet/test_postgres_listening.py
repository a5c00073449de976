"""Notifications of a real PostgreSQL: they wake, and none of them is needed."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from agent.errors import TryLater
from agent.fleet.postgres import examine, listening
from agent.fleet.postgres.connection import Connection, connect
from agent.fleet.postgres.listening import read_notice
from agent.fleet.waiting import Notice
from tests.conftest import Eventually
from tests.fleet.test_postgres import Fleet, fleet, server, two_machines
from tests.fleet.test_postgres_commands import ask
from tests.waiting import Pauses

__all__ = ["fleet", "server"]

ANY = [Notice("changes", None), Notice("command", None)]


@contextlib.asynccontextmanager
async def heard(fleet: Fleet) -> AsyncIterator[list[Notice]]:
    notices: list[Notice] = []
    task = asyncio.create_task(fleet.coordinator().listen(notices.append))
    try:
        yield notices
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_machine_hears_what_changed_and_what_waits_for_it(
    fleet: Fleet, eventually: Eventually
):
    first, a, second, b = await two_machines(fleet)
    async with heard(fleet) as notices:
        await eventually(lambda: notices == ANY)
        kept = await ask(first)
        assert await second.hand_over(b, "shop", a.id, "drain")
        wanted = [Notice("command", b.id), Notice("changes", a.id), Notice("changes", b.id)]
        await eventually(lambda: sorted(notices[2:], key=str) == sorted(wanted, key=str))
        assert kept.state == "waiting"


async def test_a_broken_connection_is_made_again_and_says_so_once(
    fleet: Fleet, eventually: Eventually, caplog: pytest.LogCaptureFixture
):
    first, *_ = await two_machines(fleet)
    async with heard(fleet) as notices:
        await eventually(lambda: notices == ANY)
        fleet.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        await eventually(lambda: notices == ANY * 2)
        await ask(first)
        await eventually(lambda: notices[-1].machine is not None)
    said = [record.message for record in caplog.records if "read at renewals" in record.message]
    assert len(said) == 1


async def test_notifications_of_another_login_are_ignored(fleet: Fleet, eventually: Eventually):
    first, *_ = await two_machines(fleet)
    async with heard(fleet) as notices:
        await eventually(lambda: notices == ANY)
        async with await psycopg.AsyncConnection.connect(fleet.address) as connection:
            for payload in ("", "changes", "changes x", "command 99999999999", "leave 1"):
                await connection.execute("SELECT pg_notify('wa_agent', %s)", (payload,))
        await ask(first)
        await eventually(lambda: len(notices) > 2)
        assert [it.kind for it in notices[2:]] == ["command"]


@pytest.fixture
def frozen_after_login(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """Set once a connection was made, whose server then stands still."""
    connected = asyncio.Event()

    async def connect_and_freeze(address: str) -> Connection:
        connection = await connect(address)
        fleet.server.signal(signal.SIGSTOP)
        connected.set()
        return connection

    for module in (examine, listening):
        monkeypatch.setattr(module, "connect", connect_and_freeze)
    yield connected
    fleet.server.signal(signal.SIGCONT)


async def test_a_listener_of_a_frozen_database_ends_at_once(
    fleet: Fleet, frozen_after_login: asyncio.Event, pauses: Pauses
):
    async with asyncio.timeout(20), heard(fleet):
        await frozen_after_login.wait()
        await asyncio.sleep(0)  # the LISTEN is sent
        begun = time.monotonic()
    took = time.monotonic() - begun - pauses.total
    assert took < 4, "psycopg alone waits ten seconds to cancel it"


async def test_a_database_that_freezes_after_the_login_is_not_waited_for(
    fleet: Fleet, frozen_after_login: asyncio.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(examine, "_WITHIN", 0.5)
    async with asyncio.timeout(20):
        with pytest.raises(TryLater, match="no answer within"):
            await examine.examine(fleet.address)


def test_a_notice_is_a_kind_and_a_machine():
    assert read_notice("changes 7") == Notice("changes", 7)
    assert read_notice("changes -7") is None
