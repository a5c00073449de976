"""What remote engines share: one question for many, and the server's state told when it changes."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from agent.core.model import ServerClaim
from agent.engines.remote.answers import LARGEST_BODY, Http, ServerDown, segment
from agent.engines.remote.declaration import BackendDeclaration
from agent.engines.remote.http import RemoteHttp
from agent.engines.remote.plain_http import PlainHttp
from agent.engines.remote.recent import Recent
from agent.engines.remote.watch import ServerWatch
from agent.errors import EngineError, InvalidRequest
from tests.conftest import Eventually


class Source:
    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False

    async def ask(self) -> int:
        self.asked += 1
        await self.go.wait()
        if self.fails:
            raise EngineError("cannot ask")
        return self.asked


async def test_callers_at_the_same_time_share_one_answer() -> None:
    source = Source()
    recent = Recent(source.ask, holds=60)
    assert await asyncio.gather(*(recent.get() for _ in range(50))) == [1] * 50
    assert await recent.get() == 1
    assert await recent.get(holds=0) == 2
    recent.forget()
    assert await recent.get() == 3
    await recent.close()


async def test_a_cancelled_caller_does_not_end_the_request() -> None:
    source = Source()
    source.go.clear()
    recent = Recent(source.ask, holds=60)
    impatient, patient = (asyncio.create_task(recent.get()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait({impatient})
    source.go.set()
    assert await patient == 1
    await recent.close()


async def test_an_error_reaches_all_callers_and_is_not_stored() -> None:
    source = Source()
    source.fails = True
    recent = Recent(source.ask, holds=60)
    results = await asyncio.gather(recent.get(), recent.get(), return_exceptions=True)
    assert [type(each) for each in results] == [EngineError, EngineError]
    source.fails = False
    assert await recent.get() == 2
    assert recent.last() is not None
    await recent.close()


async def test_an_answer_under_way_is_dropped_at_the_end() -> None:
    source = Source()
    source.go.clear()
    recent = Recent(source.ask, holds=60)
    waiting = asyncio.create_task(recent.get())
    await asyncio.sleep(0)
    await recent.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Server:
    def __init__(self) -> None:
        self.claim = ServerClaim(True)
        self.checks = 0
        self.told: list[ServerClaim] = []
        self.crashes: list[BaseException] = []
        self.error: Exception | None = None

    async def check(self) -> ServerClaim:
        self.checks += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.claim

    def watch(self) -> ServerWatch:
        return ServerWatch(self.check, self.told.append, self.crashes.append)


async def test_a_state_is_reported_when_it_changes_and_only_then() -> None:
    server = Server()
    watch = server.watch()
    for seconds in (0.1, 0.2):
        server.claim = ServerClaim(True, seconds=seconds)
        assert (await watch.check()).seconds == seconds
    assert len(server.told) == 1
    server.claim = ServerClaim(False, "timeout")
    await watch.check()
    server.claim = ServerClaim(False, "unreachable")
    await watch.check()
    assert [each.reason for each in server.told] == ["", "timeout", "unreachable"]
    await watch.close()


async def test_a_thousand_doubts_are_one_check_and_none_is_lost(eventually: Eventually) -> None:
    server = Server()
    watch = server.watch()
    for _ in range(1000):
        watch.doubt()
    await eventually(lambda: len(server.told), 1)
    assert server.checks == 1
    server.claim = ServerClaim(False, "timeout")
    watch.doubt()  # too soon for a check, and not forgotten
    await eventually(lambda: [each.up for each in server.told], [True, False])
    assert server.checks == 2
    watch.answered()
    server.claim = ServerClaim(True)
    await eventually(lambda: [each.up for each in server.told], [True, False, True])
    watch.answered()
    await watch.close()
    assert server.checks == 3


@pytest.mark.parametrize(
    ("name", "part"),
    [("sales", "sales"), ("Sales Brazil/1", "Sales%20Brazil%2F1"), ("a?b#c%d", "a%3Fb%23c%25d")],
)
def test_names_are_one_part_of_a_path(name: str, part: str) -> None:
    assert segment(name) == part


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_names_that_would_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        segment(name)


async def test_f58_an_unknown_host_name_is_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def nobody_knows(host: str, *_args: Any, **_more: Any) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)
    http = RemoteHttp(BackendDeclaration(url="http://gone.example:8080"), {})
    with pytest.raises(ServerDown, match="cannot GET /x: its name is not known") as caught:
        await http.ask("GET", "/x")
    await http.close()
    assert (caught.value.reason, caught.value.reached) == ("unreachable", False)
    assert asked == ["gone.example"]


def plainly(server: BackendDeclaration) -> Http:
    return PlainHttp(server)


def by_aiohttp(server: BackendDeclaration) -> Http:
    return RemoteHttp(server, {})


BOTH = pytest.mark.parametrize("opened", [plainly, by_aiohttp])


@BOTH
async def test_a_silent_server_is_told_in_whole_tenths_of_a_second(
    opened: Callable[[BackendDeclaration], Http],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        http = opened(BackendDeclaration(url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        try:
            with pytest.raises(ServerDown, match=r"cannot GET /x: no answer within 0\.3 s$"):
                await http.ask("GET", "/x", timeout=0.301642)
        finally:
            await http.close()


async def test_an_answer_knows_what_its_request_said() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = RemoteHttp(BackendDeclaration(url=f"http://127.0.0.1:{port}"), {"apikey": "k-1"})
    try:
        answer = await http.ask("POST", "/message", {"to": ["5511988887777"], "text": "a secret"})
    finally:
        await http.close()
        server.close()
    assert answer.without_ours("k-1 5511988887777 a secret") == "… … …"


@asynccontextmanager
async def server_of(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def compressing(encoding: str, body: bytes) -> Any:
    """A proxy that compresses though it was asked not to."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"accept-encoding: identity" in head.lower()
        said = f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{said}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    return answer


@BOTH
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)],
)
async def test_an_answer_that_a_proxy_compressed_is_read(
    opened: Callable[[BackendDeclaration], Http], encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    async with server_of(compressing(encoding, pack(b'{"state": "open"}'))) as url:
        http = opened(BackendDeclaration(url=url))
        try:
            assert (await http.ask("GET", "/x")).body == {"state": "open"}
        finally:
            await http.close()


@BOTH
@pytest.mark.parametrize(
    ("encoding", "body", "cause"),
    [
        ("br", b"{}", r"asked for none \(Content-Encoding: 'br'\): switch that off in the proxy"),
        ("gzip", b"{}", r"cannot be read \(Content-Encoding: gzip\)"),
        ("gzip", gzip.compress(b"{}")[:-9], r"ends early \(Content-Encoding: gzip\)"),
        ("gzip", gzip.compress(b" " * (LARGEST_BODY + 1)), "is larger than 8 MiB"),
    ],
    ids=["unknown", "not compressed", "cut", "a bomb"],
)
async def test_a_compressed_answer_that_cannot_be_read_is_told_as_that(
    opened: Callable[[BackendDeclaration], Http], encoding: str, body: bytes, cause: str
) -> None:
    async with server_of(compressing(encoding, body)) as url:
        http = opened(BackendDeclaration(url=url))
        try:
            with pytest.raises(ServerDown, match=cause) as caught:
                await http.ask("GET", "/x")
            assert caught.value.reason == "garbage"
        finally:
            await http.close()


async def test_a_message_does_not_leave_over_a_connection_that_the_server_closes() -> None:
    taken: list[bytes] = []

    async def closes_after_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append((await reader.readuntil(b"\r\n\r\n")).split(b" ", 1)[0])
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"key": {"id": "3EB"}}')
        with suppress(asyncio.IncompleteReadError):
            await reader.readexactly(1)  # the next request comes as it closes: nobody reads that
        writer.close()

    async with server_of(closes_after_one) as url:
        http = RemoteHttp(BackendDeclaration(url=url), {})
        try:
            for _ in range(3):
                assert (await http.ask("GET", "/x")).good
                sent = await http.ask("POST", "/message", {"text": "hello"}, alone=True)
                assert sent.body == {"key": {"id": "3EB"}}
        finally:
            await http.close()
    assert taken.count(b"POST") == 3
