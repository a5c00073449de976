"""The agent connects to no address that a webhook may not lead to, however it is written."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.supervise import reach as resolver
from agent.webhooks.courier import Parcel, Reply, RequestLine
from agent.webhooks.settings import WebhookDeclaration
from tests.listener import listening
from tests.webhooks.receiver import Receiver


@pytest.fixture
async def victim() -> AsyncIterator[list[str]]:
    """A service on this machine that must not be reached: its port, then each caller."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("somebody")
        writer.close()

    async with AsyncExitStack() as servers:
        port = await servers.enter_async_context(listening(serve, "0.0.0.0"))
        if socket.has_ipv6:
            await servers.enter_async_context(listening(serve, "::", port))
        seen.append(str(port))
        yield seen
    assert len(seen) == 1


async def send(url: str, **more: Any) -> Reply:
    line = await RequestLine.open(WebhookDeclaration("ops", url, **{"timeout": 30.0, **more}))
    try:
        return await line.post(Parcel("status", "1-1", 0.0, b"{}", "it"))
    finally:
        await line.close()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "localhost", "[::1]"),
        *("[::]", "[::ffff:127.0.0.1]", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"),
        *("169.254.169.254", "[fe80::1]"),
    ],
)
async def test_f62_no_spelling_of_a_refused_address_is_connected_to(
    victim: list[str], host: str
) -> None:
    reply = await send(f"http://{host}:{victim[0]}/")
    assert not (reply.taken or reply.refused)
    assert reply.problem.startswith(("nothing is sent to", "it cannot be reached", "its name"))


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "224.0.0.1", "0.0.0.0"])
async def test_f62_private_does_not_open_what_is_never_right(victim: list[str], host: str) -> None:
    assert "nothing is sent to" in (await send(f"http://{host}:{victim[0]}/", private=True)).problem


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Answers of the machine's resolver, one after the other; the last one stays."""
    answers: list[list[str]] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(resolver.socket, "getaddrinfo", look_up)
    yield answers


async def test_f62_a_name_that_changes_its_address_is_judged_each_time(
    names: list[list[str]],
) -> None:
    async with Receiver().open() as target:
        url = target.url.replace("127.0.0.1", "rebinding.example")
        names += [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]]
        assert (await send(url, private=True)).taken
        assert "metadata" in (await send(url, private=True)).problem
        assert (await send(url, private=True)).taken
        assert len(target.asked) == 2


async def test_f62_of_several_addresses_only_the_allowed_are_used(names: list[list[str]]) -> None:
    names += [["169.254.169.254", "127.0.0.1"]]
    async with Receiver().open() as target:
        assert (await send(target.url.replace("127.0.0.1", "mixed.example"), private=True)).taken


async def test_f62_a_name_of_refused_addresses_alone_says_so(
    victim: list[str], names: list[list[str]]
) -> None:
    for found in (["127.0.0.1"], ["10.0.0.1", "127.0.0.1"]):
        names[:] = [found]
        reply = await send(f"http://careless.example:{victim[0]}/")
        assert "nothing is sent to 127.0.0.1: it is loopback" in reply.problem


async def test_f62_neither_a_redirect_nor_a_proxy_of_the_environment_leads_elsewhere(
    victim: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{victim[0]}")
    async with Receiver().open() as target:
        assert (await send(target.url, private=True)).taken
        target.headers = {"Location": f"http://127.0.0.1:{victim[0]}/"}
        for status in (301, 302, 303, 307, 308):
            target.status = lambda body, status=status: status  # type: ignore[misc]
            reply = await send(target.url, private=True)
            assert reply.refused
            assert reply.problem == f"it answered {status}: redirects are not followed"


async def test_a_certificate_is_checked(tmp_path: Path) -> None:
    (made := tmp_path / "signed.pem").touch()
    ours = {"private": True, "ca_file": str(made)}
    for name, more, problem in (
        ("IP:127.0.0.1", ours, ""),
        ("IP:127.0.0.1", {"private": True}, "its certificate is refused"),
        ("DNS:elsewhere.example", ours, "its certificate is refused"),
    ):
        new = f"openssl req -x509 -nodes -subj /CN=x -keyout {made}.key -out {made}"
        command = [*new.split(), "-addext", f"subjectAltName={name}"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, f"{made}.key")
        async with Receiver().open(tls=context) as target:
            reply = await send(target.url, **more)
        assert problem in reply.problem
        assert (reply.taken) is bool(target.asked) is (problem == "")


async def test_a_body_that_drips_does_not_hold_a_delivery_up() -> None:
    over = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        await reader.read()
        writer.close()
        over.set()

    async with listening(drip) as port:
        assert (await send(f"http://127.0.0.1:{port}/", private=True, timeout=3600.0)).taken
        await over.wait()
