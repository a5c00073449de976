"""Copies that arrive late, and files from an older image: the newer copy stays."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from agent.errors import TryLater
from agent.fleet.coordinator import Stored
from agent.fleet.postgres.coordinator import PostgresCoordinator
from tests.conftest import Eventually
from tests.fleet.agents import FleetOfAgents, fleet_of_agents
from tests.fleet.test_lost_records import stored
from tests.fleet.test_postgres import TTL, Fleet, fleet, renewed, server, two_machines
from tests.ports import free_port

__all__ = ["fleet", "server"]

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%wa_agent.renew%'"
    " AND state = 'active' AND pid <> pg_backend_pid()"
)


class Holding:
    """A proxy before the database: what a client sends stays in it while it holds."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.port = socket, free_port()
        self.free = asyncio.Event()
        self.free.set()
        self.held = asyncio.Event()
        self.passed = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self.socket))
        answers = asyncio.create_task(self._answer(there, writer))
        while piece := await reader.read(65536):
            if not self.free.is_set():
                self.held.set()
                await self.free.wait()
            back.write(piece)
        await back.drain()
        back.write_eof()
        await answers
        back.close()
        self.passed += 1

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await there.read(65536):
            writer.write(piece)
        writer.close()


@asynccontextmanager
async def holding(fleet: Fleet) -> AsyncIterator[Holding]:
    proxy = Holding(fleet.server.folder / ".s.PGSQL.5432")
    async with await asyncio.start_server(proxy.carry, "127.0.0.1", proxy.port):
        yield proxy


async def test_a_copy_that_arrives_late_replaces_no_newer_one(fleet: Fleet, eventually: Eventually):
    _, _, second, b = await two_machines(fleet)
    assert await second.store_copy(b, "shop", 0, b"before", 1)
    async with holding(fleet) as proxy:
        address = f"postgresql://agent@127.0.0.1:{proxy.port}/whatsapp?sslmode=disable"
        slow = PostgresCoordinator(address, TTL, 2.0)
        await slow.machines()
        proxy.free.clear()
        with pytest.raises(TryLater):
            await slow.store_copy(b, "shop", 0, b"unpaired", 2)
        assert proxy.held.is_set()
        assert await second.store_copy(b, "shop", 0, b"paired", 3)
        proxy.free.set()
        await eventually(lambda: proxy.passed == 1, within=30)
        await slow.close()
    assert await second.stored("shop") == Stored(0, b"paired")
    (owned,) = await second.owned(b)
    assert owned.copy == 3


async def test_a_machine_whose_numbers_are_behind_reads_again_what_it_owns(fleet: Fleet):
    _, _, second, b = await two_machines(fleet)
    before = await second.renew(b, frozenset(), 0)
    b = await renewed(second, b)
    assert await second.store_copy(b, "shop", 0, b"new", 7)
    assert not await second.store_copy(b, "shop", 0, b"old", 4)
    after = await second.renew(b, frozenset(), 0)
    assert after.changes == before.changes + 1
    assert await second.store_copy(b, "shop", 0, b"of an older program")
    (owned,) = await second.owned(b)
    assert owned.copy == 7


async def test_a_renewal_that_arrives_late_names_no_rivals(fleet: Fleet):
    first, a, second, b = await two_machines(fleet)
    renewals = [await second.renew(b, frozenset({a.id}), 0, asked) for asked in (4, 6)]
    assert [it.accepted for it in renewals] == [True, True]
    late = await second.renew(b, frozenset({a.id, 77}), 0, 5)
    assert (late.accepted, late.epoch, late.asked) == (False, b.epoch, 6)
    assert late.renewals == renewals[-1].renewals
    assert {row.id: set(row.rivals) for row in await first.machines()}[b.id] == {a.id}
    # A machine that was made again from an older image goes on above what it is answered.
    assert (await second.renew(b, frozenset(), 0, late.asked + 1)).accepted
    assert (await second.renew(b, frozenset({a.id}), 0)).accepted, "an older program counts none"


async def test_a_call_that_was_given_up_goes_on_in_the_database_no_longer(
    fleet: Fleet, eventually: Eventually
):
    _, _, _, b = await two_machines(fleet)
    impatient = fleet.coordinator(timeout=1.0)
    await impatient.machines()
    async with await psycopg.AsyncConnection.connect(fleet.server.url) as locking:
        await locking.execute("LOCK TABLE wa_agent.machine")
        with pytest.raises(TryLater):
            await impatient.renew(b, frozenset(), 0)
        await eventually(lambda: fleet.server.sql(WAITING).strip() == "0", within=30)


@pytest.mark.slow
async def test_a_machine_from_an_older_image_goes_on_with_the_newer_stored_copy(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(("a",), tmp_path) as fleet:
        a = fleet["a"]
        await fleet.create("x", on="a", scan="manual")
        await eventually(lambda: stored(fleet, ["x"]), within=60)
        await a.lose_power()
        image = tmp_path / "image"
        shutil.copytree(a.state, image, symlinks=True, ignore=_no_sockets)
        await a.boot()
        await eventually(lambda: scanned(fleet), within=60)
        await eventually(lambda: fleet.connected(["x"]), within=60)
        await eventually(lambda: fleet.copied(["x"]), within=30)
        await a.lose_power()
        shutil.rmtree(a.state)
        shutil.copytree(image, a.state, symlinks=True)
        logins = len(fleet.witness.connections("x"))
        await a.boot()
        await eventually(lambda: len(fleet.witness.connections("x")) > logins, within=60)
        await eventually(lambda: fleet.connected(["x"]), within=30)
        assert await fleet.copied(["x"]), "the newer copy stays"
        (retired,) = (a.state / "sessions" / ".trash").glob("x.*")
        assert retired.is_dir()


async def scanned(fleet: FleetOfAgents) -> bool:
    return (await fleet["a"].ask("POST", "/api/instance/x/sandbox/scan"))[0] < 300


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]
