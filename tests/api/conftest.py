"""The real server on a real port and a real Unix socket, over a supervisor in memory."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import aiohttp
import pytest

from agent.api.assemble import serve
from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts
from agent.api.http.idempotency import IdempotentAnswers
from agent.api.server import Server
from agent.config.sections import ApiSection
from agent.metrics.exporter import Exporter
from agent.wings.evidence.part import Evidence
from agent.wings.messages.part import MessagesPart
from agent.wings.troubles.part import Troubles
from agent.wings.webhooks.all import Webhooks
from tests.fakes.evidence import FakeEvidence, FakeSampler
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor
from tests.wings.webhooks.fake_webhooks import FakeWebhooks


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
    outbox: Any = None

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

    async def raw(self, sent: bytes, *, within: float = 30.0) -> bytes:
        """What the server says until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            async with asyncio.timeout(within):
                return await reader.read()
        finally:
            writer.close()


OpenHouse = Callable[..., Any]


async def serve_fakes(
    section: ApiSection,
    supervisor: FakeSupervisor,
    keys: FakeKeys,
    metrics: Exporter,
    path: Path,
    *,
    of_wings: Mapping[type, Any] = MappingProxyType({}),
    outbox: Any = None,
) -> Server:
    """The real server over what stands in for the rest of the agent."""
    ring, answers = await KeyRing.open(keys), IdempotentAnswers(keys)
    parts = Parts(
        section,
        supervisor,
        ring,
        metrics,
        answers,
        keys.check,
        FakeSampler(),
        places={},
        of_wings={
            Troubles: SimpleNamespace(present=tuple),
            Evidence: FakeEvidence(),
            **of_wings,
        },
        outbox=outbox,
    )
    return await serve(parts, socket_path=path, environ={})


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    numbers = itertools.count()

    @asynccontextmanager
    async def opening(
        outbox_of: Callable[..., Any] = lambda *_: None, **changes: Any
    ) -> AsyncIterator[House]:
        supervisor, keys = FakeSupervisor(), FakeKeys()
        metrics = Exporter(supervisor.views, supervisor.status, tmp_path)
        section = replace(ApiSection(), **{"listen": "127.0.0.1:0", **changes})
        path = tmp_path / f"{next(numbers)}.sock"
        webhooks, messages = FakeWebhooks(), FakeMessages(keys)
        outbox = outbox_of(supervisor, keys, messages.source)
        of_wings = {Webhooks: webhooks, MessagesPart: messages.part, type(outbox): outbox}
        server = await serve_fakes(
            section, supervisor, keys, metrics, path, of_wings=of_wings, outbox=outbox
        )
        number = server.addresses[0].rpartition(":")[2]
        port = int(number) if number.isdigit() else 0
        try:
            yield House(supervisor, keys, server, metrics, path, port, webhooks, messages, outbox)
        finally:
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


def envelope(raw: bytes) -> dict[str, Any]:
    """The error in a raw answer."""
    found = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert set(found) == {"error", "message", "field", "request"}, found
    return found


__all__ = ["Awaitable", "KeyRing", "envelope"]
