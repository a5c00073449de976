"""A session with a proxy of its own, which hangs while a session without one is connected."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.engines.baileys.conftest import ACCOUNT, OTHER, cache, whatsapp
from tests.listener import listening
from tests.standin.baileys.run import WhatsApp

__all__ = ["cache", "whatsapp"]

SOON = (
    SETTINGS.replace("timeout = 0.5", "timeout = 2").replace("interval = 1", "interval = 2")
    + """
look_timeout = 1
look_every = 1

[recovery]
tries = 1
first_delay = 0.2
rounds = 1
round_pause = 1
settle = 2
settle_start = 2

[phases]
login = 8
"""
)
EXTRA = {"WA_AGENT_WORKER__WATCHDOG": "20"}


class Proxy:
    """Answers HEAD itself and carries tunnels, while these events are set; else it is silent."""

    def __init__(self) -> None:
        self.answers, self.carries = asyncio.Event(), asyncio.Event()
        self.answers.set()
        self.carries.set()
        self._tunnels: list[asyncio.StreamWriter] = []

    def hang(self) -> None:
        self.answers.clear()
        self.carries.clear()
        while self._tunnels:
            self._tunnels.pop().transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        if method != b"CONNECT":
            await self.answers.wait()
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()
            return
        await self.carries.wait()
        host, _, port = target.decode().rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        self._tunnels += [writer, back]
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        finally:
            back.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        sink.close()


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[Proxy, str]]:
    made = Proxy()
    async with listening(made.serve) as port:
        yield made, f"http://127.0.0.1:{port}"


async def paired(
    agent: RunningAgent, whatsapp: WhatsApp, eventually: Eventually, id: str, **settings: str
) -> None:
    account = {"own": ACCOUNT, "plain": OTHER}[id]
    settings = {"url": whatsapp.socket, **settings}
    await agent.do("POST", "/api/instance", {"id": id, "engine": "baileys", "settings": settings})
    await eventually(lambda: agent.status(id), "QR_REQUIRED", within=40)
    code = await agent.do("GET", f"/api/instance/{id}/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], account)
    await eventually(lambda: agent.status(id), "CONNECTED", within=40)


@pytest.mark.slow
async def test_its_neighbour_that_goes_out_without_a_proxy_proves_nothing_about_its_way(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    proxy: tuple[Proxy, str],
    eventually: Eventually,
) -> None:
    way, url = proxy
    agent = make_agent(base=SOON)
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(EXTRA)
    await asyncio.gather(
        paired(agent, whatsapp, eventually, "own", proxy=url),
        paired(agent, whatsapp, eventually, "plain"),
    )

    async def repairs(kind: str) -> list[str]:
        return [sentence for said, sentence in await agent.story("own") if said == kind]

    # A proxy that answers nothing: its way out is away, and no step is tried.
    way.hang()
    waits = f"through {url.partition('://')[2]}: no answer"
    await eventually(lambda: is_told(agent, waits), within=40)
    await agent.do("POST", "/api/instance/own/health")
    assert await is_told(agent, waits)
    assert await repairs("repair") == []
    assert await agent.status("plain") == "CONNECTED"

    # A proxy that is answered for and carries nothing: the session hangs.
    way.answers.set()
    await eventually(lambda: repairs("repair_over"), within=90)
    assert {told.split(":")[0] for told in await repairs("repair")} == {"restart"}
    assert (await repairs("repair_over"))[0].startswith("gave up: ")
    assert await agent.status("plain") == "CONNECTED"
    assert (await agent.do("GET", "/api/trash"))["trash"] == []

    way.carries.set()
    await agent.do("POST", "/api/instance/own/recover?wait=120")
    await eventually(lambda: agent.status("own"), "CONNECTED", within=60)
    assert (await agent.show("own"))["paired"]


async def is_told(agent: RunningAgent, words: str) -> bool:
    return words in (await agent.show("own"))["health"]["sentence"]
