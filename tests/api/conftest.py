"""The real server on a real port and a real Unix socket, over a supervisor in memory."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts
from agent.api.server import Server
from agent.config.config import ApiSection
from agent.core.model import InstanceId
from agent.core.troubles import Trouble, Windows
from agent.messages.outbox import Outbox
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor
from tests.webhooks.fake_webhooks import FakeWebhooks


@dataclass
class House:
    supervisor: FakeSupervisor
    keys: FakeKeys
    server: Server
    metrics: Exporter
    socket_path: Path
    port: int
    webhooks: FakeWebhooks
    messages: FakeMessages
    sending: Sending

    @asynccontextmanager
    async def figures(self, name: str) -> AsyncIterator[None]:
        """The worker of the session was told what is settled, and told its figures."""
        reader, worker = self.messages.reader, self.messages.workers[InstanceId(name)]
        before = len(worker.asked)
        reader.changed(InstanceId(name))
        running = asyncio.create_task(reader.run())
        try:
            async with asyncio.timeout(30):
                while "messages_state" not in dict(worker.asked[before:]):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            yield
        finally:
            running.cancel()
            await asyncio.wait({running})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def key(self, *scopes: str) -> dict[str, str]:
        """A key made through the front door, as the header that carries it."""
        async with self.local() as session:
            answer = await session.post(
                "http://localhost/api/keys", json={"name": "a test", "scopes": list(scopes)}
            )
            assert answer.status == 201, await answer.text()
            return {"Authorization": "Bearer " + (await answer.json())["token"]}

    def local(self, **more: Any) -> aiohttp.ClientSession:
        """A client on the Unix socket."""
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket_path)), **more)

    async def raw(self, sent: bytes, *, within: float = 60.0) -> bytes:
        """Return the bytes that the server sends until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(within):
                return await reader.read()
        finally:
            writer.close()


class LateSending(Sending):
    """The real one, which opens its file for the first message."""

    running: asyncio.Task[None] | None = None

    async def ready(self) -> Outbox:
        if self.running is None:
            self.running = asyncio.create_task(self.run())
        return await super().ready()

    async def end(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})


OpenHouse = Callable[..., Any]


async def serve_fakes(
    section: ApiSection,
    supervisor: FakeSupervisor,
    keys: FakeKeys,
    metrics: Exporter,
    path: Path,
    *,
    messages: FakeMessages | None = None,
    sending: Any = None,
    webhooks: Any = None,
    troubles: Callable[[], Collection[Trouble]] = tuple,
) -> Server:
    """The real server over what stands in for the rest of the agent."""
    supervisor.store, supervisor.root = keys, path.parent
    ring = KeyRing(keys, await keys.keys())
    parts = Parts(
        section,
        supervisor,
        ring,
        metrics,
        (messages or FakeMessages()).reader,
        sending,
        webhooks,
        supervisor.moving,
        troubles,
        Windows(),
        places={},
    )
    server = Server(parts)
    await server.open(path, {}, "")
    return server


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    numbers = itertools.count()

    @asynccontextmanager
    async def opening(**changes: Any) -> AsyncIterator[House]:
        supervisor, keys = FakeSupervisor(), FakeKeys()
        metrics = Exporter(supervisor.views, supervisor.status, [tmp_path])
        section = replace(ApiSection(), **{"listen": "127.0.0.1:0", **changes})
        path = tmp_path / f"{next(numbers)}.sock"
        webhooks, messages = FakeWebhooks(), FakeMessages()
        supervisor.known = messages.sessions
        sending = LateSending(tmp_path, supervisor, keys, supervisor.bus, messages.reader)
        rooms = {"messages": messages, "sending": sending, "webhooks": webhooks}
        server = await serve_fakes(section, supervisor, keys, metrics, path, **rooms)
        number = server.addresses[0].rpartition(":")[2]
        port = int(number) if number.isdigit() else 0
        try:
            yield House(supervisor, keys, server, metrics, path, port, webhooks, messages, sending)
        finally:
            await sending.end()
            await server.close()

    return opening


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@pytest.fixture
async def local(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    """A trusted client."""
    async with house.local(base_url="http://localhost") as session:
        yield session


def upgrade(path: str = "/api/events") -> bytes:
    """The head by which a raw client asks for a WebSocket."""
    head = f"GET {path} HTTP/1.1\r\nHost: [::1]\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    more = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    return (head + more).encode()


def envelope(raw: bytes) -> dict[str, Any]:
    """The error in a raw answer."""
    found = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert set(found) == {"error", "message", "field", "request"}, found
    return found
