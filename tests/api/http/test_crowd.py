"""Many connections from one machine: those with a request are answered, idle ones give way."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import House, OpenHouse, upgrade
from tests.conftest import Eventually

HALF = b"GET /healthz HTTP/1.1\r\nHost: loc"


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))


@contextlib.asynccontextmanager
async def connections(
    house: House, count: int, begin: Callable[[int, asyncio.StreamWriter], None]
) -> AsyncIterator[list[asyncio.StreamReader]]:
    readers, writers = [], []
    try:
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1)
            readers.append(reader)
            writers.append(writer)
            begin(number, writer)
        yield readers
    finally:
        for writer in writers:
            writer.transport.abort()


def half(number: int, writer: asyncio.StreamWriter) -> None:
    """It begins a head and leaves it at that."""
    if number % 2:
        writer.write(HALF)


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_half_open_connections_keep_no_client_out(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house(head_timeout=600.0) as house:
        key, entrance = await house.key("read"), house.server._entrance
        entrance.most = 300
        async with connections(house, 1000, half):
            await eventually(lambda: len(entrance.connections) == entrance.most)
            async with aiohttp.ClientSession(house.url) as tcp, house.local() as unix:
                async with asyncio.timeout(30):
                    assert (await tcp.get("/healthz")).status == 200
                    assert (await tcp.get("/metrics", headers=key)).status == 200
                    assert (await tcp.get("/api/instances", headers=key)).status == 200
                    # A wrong secret: it was heard, which is what matters here.
                    assert (await tcp.post("/api/instance", json={})).status in (401, 403, 404)
                    assert (await unix.get("http://localhost/api/instances")).status == 200


def ask(path: str, key: str = "") -> bytes:
    header = f"Authorization: {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode()


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("sent", [ask("/openapi.json") * 200, upgrade("/api/events?after=0")])
async def test_clients_that_do_not_read_their_answers_lose_their_places(
    open_house: OpenHouse, eventually: Eventually, sent: bytes
) -> None:
    def unread(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        writer.write(sent)

    async with open_house(trust_loopback=True) as house:
        for _ in range(2000):
            house.supervisor.note(None, "status", "x" * 2000)
        entrance = house.server._entrance
        entrance.most_unread = 16
        async with connections(house, 100, unread), aiohttp.ClientSession(house.url) as tcp:
            await eventually(lambda: len(entrance.unread) == 16, within=60)
            async with asyncio.timeout(30):
                for path in ("/metrics", "/api/instances", "/healthz"):
                    assert (await tcp.get(path)).status == 200
            await eventually(lambda: len(entrance.connections) <= 16 + 3)
        await eventually(lambda: not entrance.unread)


def _waiting(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., Awaitable[list[Any]]]:
    async def history(*_asked: object, **_more: object) -> list[Any]:
        begun.set()
        await go_on.wait()
        return []

    return history


async def test_connections_that_send_nothing_push_out_none_that_showed_a_right_key(
    house: House, eventually: Eventually
) -> None:
    entrance, key = house.server._entrance, await house.key("read")
    entrance.most = 10
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    async with asyncio.timeout(60):
        for _ in range(2):
            writer.write(ask("/api/instances", key["Authorization"]))
            assert b" 200 " in await reader.readuntil(b"\r\n")
            await reader.readuntil(b"}\n")
            async with connections(house, 30, half):
                await eventually(lambda: len(entrance.connections) == entrance.most)
    writer.transport.abort()


async def test_an_idle_connection_gives_way_without_a_word(house: House) -> None:
    """It would be the answer to the next request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    async with asyncio.timeout(60):
        writer.write(ask("/healthz"))
        await reader.readuntil(b"}\n")
        house.server._entrance.most = 1
        async with connections(house, 1, half):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("requests", [1, 2])
async def test_a_client_that_ended_its_side_gets_its_answers(house: House, requests: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(ask("/openapi.json") * requests)
    writer.write_eof()
    async with asyncio.timeout(30):
        answered = await reader.read()
    assert answered.count(b"HTTP/1.1 200") == requests
    writer.close()


async def test_two_hundred_readers_of_a_client_with_rights_wait_and_keep_it_not_out(
    house: House,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    house.supervisor.history = _waiting(begun, go_on)
    key = await house.key("read")
    async with asyncio.timeout(60), aiohttp.ClientSession(house.url) as tcp:
        made = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(200)]
        for _, writer in made:
            writer.write(ask("/api/events", key["Authorization"]))
        await begun.wait()
        assert (await tcp.get("/api/instances", headers=key)).status == 200
        go_on.set()
        assert {(await reader.readline()).split()[1] for reader, _ in made} == {b"200"}
        for _, writer in made:
            writer.transport.abort()


async def test_a_key_that_opens_connection_after_connection_keeps_out_no_other_client(
    house: House,
) -> None:
    """Each WebSocket of a key that only reads had a place; the probes and the Unix socket none."""
    house.server._entrance.most = 8
    key, other = await house.key("read"), await house.key("read")
    async with asyncio.timeout(60), aiohttp.ClientSession(house.url) as tcp, house.local() as unix:
        held = [await tcp.ws_connect("/api/events", headers=key) for _ in range(4)]
        for _ in range(8):
            refused = await tcp.get("/api/instances", headers=key)
            assert refused.status == 429, await refused.text()
        assert (await refused.json())["error"] == "too_many_connections"
        assert not any(listener.closed for listener in held)
        assert (await tcp.get("/healthz")).status == 200
        assert (await tcp.get("/metrics", headers=other)).status == 200
        assert (await unix.get("http://localhost/api/instances")).status == 200
