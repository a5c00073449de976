"""One look at an address: what counts as reached, and what it says where it does not."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from agent.core.words import Address
from agent.supervise import reach as names
from agent.supervise.reach import look
from tests.listener import listening

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LONG = 30.0
"""Nothing that answers takes so long."""


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[int]:
    """A server that talks so; its port."""

    async def serve(reader, writer):
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with listening(serve) as port:
        yield port


def answers(status: str, page: str = "page") -> Talk:
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        # The page comes for HEAD too, as from servers that know only GET.
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode())
        await writer.drain()

    return talk


async def is_silent(reader, _writer):
    await reader.read()


async def babbles(_reader, writer):
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()


async def look_at(port, **how):
    return await look(Address(f"http://127.0.0.1:{port}/", **how), LONG)


@pytest.mark.parametrize("status", ["200 OK", "503 Busy", f"200 OK\r\nX-Policy: {'a ' * 30_000}"])
async def test_any_answer_of_a_server_shows_that_it_is_reached(status):
    async with serving(answers(status)) as port:
        assert await look_at(port) == ""


async def test_a_connection_alone_is_not_enough():
    async with serving(babbles) as port:
        assert await look_at(port) in ("it does not speak HTTP", "the connection was cut")


async def test_a_server_that_accepts_and_says_nothing_is_away():
    async with serving(is_silent) as port:
        assert await look(Address(f"http://127.0.0.1:{port}/"), 0.2) == "no answer in 0.2 s"


async def test_a_closed_port_is_named():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert await look_at(one.getsockname()[1]) == "connection refused"


async def test_a_captive_portal_has_no_tls_of_the_site():
    async def portal(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 302 Found\r\n\r\n")
        await writer.drain()

    async with serving(portal) as port:
        assert await look(Address(f"https://127.0.0.1:{port}/"), LONG) == "no TLS with it"


async def test_the_way_leads_through_the_proxy_with_its_password():
    heads = []

    async def proxy(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        await writer.drain()

    async with serving(proxy) as port:
        for site in ("https://site.example/", "http://site.example/"):
            found = await look(Address(site, f"http://till:a%3Ab@127.0.0.1:{port}"), LONG)
            assert found == "the proxy answers 502"
    lines = ["CONNECT site.example:443 HTTP/1.1", "GET http://site.example/ HTTP/1.1"]
    assert [head[0] for head in heads] == lines
    for head in heads:
        assert "Proxy-Authorization: Basic dGlsbDphOmI=" in head
        assert "" not in head[:-2]


async def test_a_socks_proxy_that_takes_connections_is_reached():
    async with serving(is_silent) as port:
        through = f"socks5://127.0.0.1:{port}"
        assert await look(Address("http://site.example/", through), LONG) == ""
    assert await look(Address("http://site.example/", through), LONG) == "connection refused"


async def test_name_servers_that_do_not_answer_hold_up_nothing_else(monkeypatch, eventually):
    """The C library cannot be interrupted: its threads are few, and not those of the loop."""
    wait, asked, said = threading.Event(), [], set()

    def idle():
        return names._asked._value == names.MOST_AT_ONCE

    def hang(host, *_args, **_more):
        asked.append(host)
        wait.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    await eventually(idle, within=60)  # an unknown name's thread may still ask
    monkeypatch.setattr(names.socket, "getaddrinfo", hang)
    address = Address("https://site.example/")
    try:
        while len(asked) < names.MOST_AT_ONCE:  # a pause may end a look before it asks
            said |= {*await asyncio.gather(*(look(address, 0.3) for _ in range(20)))}
        said.add(await look(address, LONG))
        assert said == {"no answer in 0.3 s", "no name server answers"}
        assert len(asked) == names.MOST_AT_ONCE
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30) == "free"
    finally:
        wait.set()
    await eventually(idle)
