"""Many connections from one machine: those with a request are answered, idle ones give way."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from agent.api.http.crowd import ConnectionLimits, Stage
from agent.api.http.turns import Turns
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


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def lines(house: House, count: int, source: str) -> AsyncIterator[list[Line]]:
    """Connections that were answered once, and are kept."""
    made: list[Line] = []
    try:
        for _ in range(count):
            line = await asyncio.open_connection("127.0.0.1", house.port, local_addr=(source, 0))
            made.append(line)
            line[1].write(ask("/healthz"))
            await line[0].readuntil(b"}\n")
        yield made
    finally:
        for _, writer in made:
            writer.transport.abort()


def ask(path: str, key: str = "") -> bytes:
    header = f"Authorization: {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode()


async def test_requests_of_strangers_over_the_limit_are_refused_before_their_turn(
    house: House,
) -> None:
    house.server._entrance.limits.asked_per_address = 3
    house.server._entrance.limits.kept_free = 0
    key = (await house.key("read"))["Authorization"]
    async with asyncio.timeout(60), lines(house, 10, "127.0.0.1") as strangers:
        for number, (_, writer) in enumerate(strangers):
            writer.write(ask("/api/caller", key if number == 9 else ""))
        statuses = [(await reader.readline()).split()[1] for reader, _ in strangers]
    assert statuses.pop() == b"200"
    assert set(statuses) == {b"401", b"503"}
    assert statuses.count(b"401") <= 3


async def test_a_stranger_that_is_given_up_takes_no_turn_of_another() -> None:
    turns = Turns()
    gone, next_one = asyncio.create_task(turns.wait("a")), asyncio.create_task(turns.wait("a"))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(60):
        await next_one
    assert gone.cancelled()


@contextlib.asynccontextmanager
async def unread(house: House, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that pipeline requests for a long answer and read none of them."""
    readers, writers = [], []
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1)
            readers.append(reader)
            writers.append(writer)
            writer.transport.pause_reading()
            writer.write(ask * 200)
        yield readers
    finally:
        for writer in writers:
            writer.transport.abort()


@pytest.mark.usefixtures("many_files")
async def test_clients_that_do_not_read_their_answers_lose_their_places(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house() as house:
        key = await house.key("read")
        limits = house.server._entrance.limits
        async with unread(house, 100), aiohttp.ClientSession(house.url) as tcp:
            await eventually(lambda: limits.gave_way > 0, within=60)
            async with asyncio.timeout(30):
                for path in ("/metrics", "/api/instances"):
                    assert (await tcp.get(path, headers=key)).status == 200
                assert (await tcp.get("/healthz")).status == 200
            await eventually(lambda: limits.count(Stage.REQUEST) == 0, within=60)
            assert limits.count(Stage.UNREAD) <= limits.unread_per_address
        await eventually(lambda: limits.count(Stage.UNREAD) == 0)


async def test_a_right_key_has_a_place_while_strangers_are_refused_and_shut_out(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house(connections_per_address=1) as house:
        key = await house.key("read")
        limits = house.server._entrance.limits
        limits.kept_free = 0
        begun, go_on = asyncio.Event(), asyncio.Event()
        house.supervisor.history = _waiting(begun, go_on)
        async with aiohttp.ClientSession(house.url) as tcp, asyncio.timeout(30):
            asked = asyncio.create_task(tcp.get("/api/events", headers=key))
            await begun.wait()
            refused = await house.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
            assert refused.count(b"HTTP/1.1 ") == 1, "the first refusal ends the connection"
            assert b" 503 " in refused.splitlines()[0]
            assert limits.count(Stage.REQUEST) == 1
            wrong = {"Authorization": "Bearer wak_aaaaaaaa_" + "a" * 32}
            assert (await tcp.get("/api/instances", headers=wrong)).status == 503
            assert (await tcp.get("/api/instances", headers=key)).status == 200
            go_on.set()
            assert (await asked).status == 200


def _waiting(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., Awaitable[list[Any]]]:
    async def history(*_asked: object, **_more: object) -> list[Any]:
        begun.set()
        await go_on.wait()
        return []

    return history


async def test_a_burst_of_strangers_is_refused_before_a_client_with_rights(
    open_house: OpenHouse,
) -> None:
    """All that come in one turn of the loop are counted as they are admitted, not as they come."""
    async with open_house(connections_per_address=8) as house, contextlib.AsyncExitStack() as stack:
        limits = house.server._entrance.limits
        limits.heads_per_address = 1000
        key = (await house.key("read"))["Authorization"]
        headers = [f"Authorization: {key}\r\n", *[""] * 200]
        lines = []
        for _ in headers:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            stack.callback(writer.close)
            lines.append((reader, writer))
        for (_, writer), header in zip(lines, headers, strict=True):
            ask = f"GET /api/caller HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
            writer.write(ask.encode())
        async with asyncio.timeout(30):
            answers = [(await reader.readline()).split()[1] for reader, _ in lines]
        assert answers[0] == b"200"
        assert set(answers[1:]) == {b"401"}, "what is refused at once takes no place"
        assert limits.count(Stage.REQUEST) == 0


async def test_a_client_that_pipelines_gives_up_its_place_between_two_requests(
    open_house: OpenHouse,
) -> None:
    async with open_house(connections_per_address=1) as house:
        limits = house.server._entrance.limits
        limits.heads_per_address, limits.kept_free = 10, 0
        ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20
        lines = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(2)]
        for _, writer in lines:
            writer.write(ask)
            writer.write_eof()
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(reader.read() for reader, _ in lines))
        assert [answer.count(b"HTTP/1.1 200") for answer in answers] == [20, 20]
        for _, writer in lines:
            writer.close()


async def test_a_trusted_client_of_the_unix_socket_has_a_place_that_no_stranger_takes(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house, house.local(base_url="http://localhost") as local:
        limits = house.server._entrance.limits
        limits.requests = limits.kept_free = 0
        async with aiohttp.ClientSession(house.url) as tcp:
            assert (await tcp.get("/healthz")).status == 503
        assert (await local.get("/api/instances")).status == 200


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("path", ["/openapi.json"])
async def test_a_client_that_ended_its_side_gets_its_answers(
    house: House, path: str, requests: int
) -> None:
    ask = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(ask * requests)
    writer.write_eof()
    async with asyncio.timeout(30):
        answered = await reader.read()
    assert answered.count(b"HTTP/1.1 200") == requests
    writer.close()


async def test_half_a_body_is_no_request(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b"POST /api/instance HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    writer.write_eof()
    async with asyncio.timeout(30):
        assert b"HTTP/1.1 2" not in await reader.read()
    writer.close()


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


def test_a_client_with_a_request_takes_no_slot_from_clients_without() -> None:
    limits = ConnectionLimits(per_address=1, heads_per_address=1, kept_free=1)
    asking, next_one, scrape = Guest(), Guest(), Guest()
    for guest in (asking, next_one, scrape):
        limits.stand(guest, "a", Stage.HEAD)
        limits.stand(guest, "a", Stage.ASKED)
    assert limits.count(Stage.HEAD) == 0
    assert limits.admit(asking, "a", needed=False)
    assert not limits.admit(next_one, "a", needed=False)
    assert limits.admit(scrape, "a", needed=True)
    assert not limits.admit(next_one, "a", needed=True), "one place and one kept free are taken"
    assert limits.admit(scrape, "a", needed=True), "its next request has the place of its last"
    limits.leave(asking)
    limits.leave(scrape)
    assert limits.admit(next_one, "a", needed=False)
