"""Many connections from one machine: those with a request are answered, idle ones give way."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator

import aiohttp
import pytest

from agent.api.http.connection_limits import ConnectionLimits, Stage
from tests.api.conftest import House, OpenHouse
from tests.conftest import Eventually

HALF = b"GET /healthz HTTP/1.1\r\nHost: loc"


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


@contextlib.asynccontextmanager
async def half_open(house: House, count: int) -> AsyncIterator[None]:
    """Connections that begin a head and leave it at that."""
    writers = []
    try:
        for number in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writers.append(writer)
            if number % 2:
                writer.write(HALF)
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_half_open_connections_keep_no_client_out(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house(head_timeout=600.0) as house:
        key = await house.key("read")
        async with half_open(house, 1000):
            limits = house.server._entrance.limits
            await eventually(lambda: limits.gave_way >= 900)
            assert limits.count(Stage.HEAD) <= limits.heads_per_address
            async with aiohttp.ClientSession(house.url) as tcp, house.local() as unix:
                async with asyncio.timeout(30):
                    assert (await tcp.get("/healthz")).status == 200
                    assert (await tcp.get("/metrics", headers=key)).status == 200
                    assert (await tcp.get("/api/instances", headers=key)).status == 200
                    # A wrong secret: it was heard, which is what matters here.
                    assert (await tcp.post("/hooks/evo/wrong", json={})).status in (401, 403, 404)
                    assert (await unix.get("http://localhost/api/instances")).status == 200


@pytest.mark.usefixtures("many_files")
async def test_answers_that_no_client_reads_leave_the_scrape_its_places(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house(connections_per_address=4) as house:
        key = await house.key("read")
        limits = house.server._entrance.limits
        writers = []
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(12):
            _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1)
            writer.transport.pause_reading()
            writer.write(ask * 200)
            writers.append(writer)
        await eventually(lambda: limits.count(Stage.REQUEST) >= 5)
        async with aiohttp.ClientSession(house.url) as tcp, asyncio.timeout(30):
            answer = await tcp.get("/api/instances", headers=key)
            assert answer.status == 503
            assert (await answer.json())["error"] == "busy"
            assert (await tcp.get("/metrics", headers=key)).status == 200
            assert (await tcp.get("/healthz")).status == 200
        for writer in writers:
            writer.transport.abort()
        await eventually(lambda: limits.count(Stage.REQUEST) == 0)


class Guest:
    """A connection that notes whether it had to go."""

    def __init__(self) -> None:
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


def test_the_oldest_gives_way_and_only_to_its_own_address() -> None:
    limits = ConnectionLimits(heads_per_address=2, heads=10)
    here, there = [Guest() for _ in range(3)], Guest()
    limits.stand(there, "10.0.0.1", Stage.HEAD)
    for guest in here:
        limits.stand(guest, "127.0.0.1", Stage.HEAD)
    assert [guest.gone for guest in here] == [True, False, False]
    assert not there.gone


def test_many_addresses_share_what_there_is_together() -> None:
    limits = ConnectionLimits(heads_per_address=2, heads=3)
    guests = [Guest() for _ in range(5)]
    for number, guest in enumerate(guests):
        limits.stand(guest, f"127.0.0.{number}", Stage.HEAD)
    assert [guest.gone for guest in guests] == [True, True, False, False, False]


def test_a_client_with_a_request_takes_no_slot_from_clients_without() -> None:
    limits = ConnectionLimits(per_address=1, heads_per_address=1, kept_free=1)
    asking, next_one, scrape = Guest(), Guest(), Guest()
    for guest in (asking, next_one, scrape):
        limits.stand(guest, "a", Stage.HEAD)
        limits.stand(guest, "a", Stage.REQUEST)
    assert limits.count(Stage.HEAD) == 0
    assert limits.crowded("a", needed=False)
    assert limits.crowded("a", needed=True)  # three at a time, one place and one kept free
    limits.leave(scrape)
    assert limits.crowded("a", needed=False)
    assert not limits.crowded("a", needed=True)
    limits.leave(next_one)
    assert not limits.crowded("a", needed=False)
