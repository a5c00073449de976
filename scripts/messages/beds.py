"""WhatsApp and its contacts for the sessions of one agent, by engine."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from agent.engines.web.fetch import fetch_bundle
from agent.errors import HostError
from scripts.benches.machine import TOP
from scripts.messages.tally import Sent
from tests.daemon.conftest import RunningAgent
from tests.daemon.line import Line, line_to
from tests.engines.baileys.conftest import make_cache
from tests.standin.baileys.run import WhatsApp
from tests.standin.web.stand_in import StandIn

CONTACTS = tuple(f"55119000009{n:02d}" for n in range(4))
"""Contacts of each session: its chats."""
CONNECTED = 180.0
"""Seconds until a session is paired."""


class NotNow(Exception):
    """The agent or the worker is away, as it must be at times: ask again."""


class Bed(Protocol):
    engine: str
    below: str
    """Name of the process below a worker; "" = none."""
    environment: Mapping[str, str]
    """Environment of the agent."""

    async def open(self, stack: AsyncExitStack) -> None: ...

    async def add(self, agent: RunningAgent, id: str) -> None:
        """A session that is connected."""

    async def say(self, id: str, contact: str, text: str, number: int) -> str:
        """WhatsApp's id of what the contact wrote; NotNow."""

    async def got(self, id: str) -> list[Sent]:
        """All that the session's contacts got; NotNow."""

    async def cut(self, seconds: float) -> None:
        """All sessions are without WhatsApp for so long."""


class SandboxBed:
    engine, below = "sandbox", ""
    environment: Mapping[str, str] = {}

    def __init__(self) -> None:
        self._agent: RunningAgent | None = None
        self._ids: list[str] = []
        self._got: dict[str, list[Sent]] = defaultdict(list)
        self._next: dict[str, int] = defaultdict(int)

    async def open(self, stack: AsyncExitStack) -> None:
        pass

    async def add(self, agent: RunningAgent, id: str) -> None:
        self._agent = agent
        self._ids.append(id)
        await agent.create(id, read_after=0.1)
        await until(agent, id, "CONNECTED")

    async def say(self, id: str, contact: str, text: str, number: int) -> str:
        # The same id when it is said again: of a call that was cut off nobody knows its end.
        body = {"contact": contact, "text": text, "message_id": f"3EB0IN{number:08d}"}
        return str((await self._do("POST", id, "say", body))["id"])

    async def got(self, id: str) -> list[Sent]:
        while True:
            page = await self._do("GET", id, f"heard?limit=500&after={self._next[id]}")
            self._got[id] += [(each.get("text", ""), each["id"]) for each in page["messages"]]
            self._next[id] = page["next"]
            if not page["more"]:
                return self._got[id]

    async def cut(self, seconds: float) -> None:
        for id in self._ids:
            with suppress(NotNow):
                await self._do("POST", id, "fault", {"fault": "drop", "for": seconds})

    async def _do(self, method: str, id: str, what: str, body: Any = None) -> Any:
        assert self._agent is not None
        path = f"/api/instance/{id}/sandbox/{what}"
        return await ask(self._agent, method, path, body)


class BaileysBed:
    """The unmodified library in front of the tests' stand-in."""

    engine, below = "baileys", "Node"
    environment: Mapping[str, str] = {}

    def __init__(self, root: Path) -> None:
        self._root = root
        self.accounts: dict[str, str] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        self.whatsapp = WhatsApp(self._root / "whatsapp.log")
        stack.callback(self.whatsapp.end)
        await asyncio.to_thread(self.whatsapp.takes_enclosed_keys, *CONTACTS)
        await asyncio.to_thread(self.whatsapp.asks_again, *CONTACTS)
        where = urlsplit(self.whatsapp.socket)
        assert where.port is not None
        self._line = await stack.enter_async_context(line_to(where.port))
        self.url = f"ws://127.0.0.1:{self._line.port}{where.path}"
        self.cache = make_cache(self._root / "cache")

    def new_account(self, id: str) -> str:
        return self.accounts.setdefault(id, f"55119000{len(self.accounts) + 1:05d}")

    async def add(self, agent: RunningAgent, id: str) -> None:
        settings = {"url": self.url, "client_starts": 100}
        body = {"id": id, "engine": "baileys", "settings": settings}
        await agent.do("POST", "/api/instance", body)
        await until(agent, id, "QR_REQUIRED")
        code = await agent.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self.whatsapp.scan, code["qr"], self.new_account(id))
        await until(agent, id, "CONNECTED")

    async def say(self, id: str, contact: str, text: str, number: int) -> str:
        return await asyncio.to_thread(self.whatsapp.say, contact, self.accounts[id], text)

    async def got(self, id: str) -> list[Sent]:
        people = await asyncio.to_thread(self.whatsapp.people)
        heard = (each for person in people for each in person["heard"])
        return [(it["text"], it["id"]) for it in heard if it["from"] == self.accounts[id]]

    async def cut(self, seconds: float) -> None:
        await cut_all([self._line], seconds)


class WebBed:
    """The unmodified bundle in a browser, on a stand-in page for each session."""

    engine, below = "web", "browser"

    def __init__(self) -> None:
        self.environment: Mapping[str, str] = {}
        self._places: dict[str, tuple[StandIn, Line]] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
        await asyncio.to_thread(fetch_bundle, cache)
        self.environment = {"CACHE_PATH": str(cache)}

    async def add(self, agent: RunningAgent, id: str) -> None:
        stand_in: Any = await StandIn.open(qr_every=300, alive_every=0.5)
        self._stack.push_async_callback(stand_in.close)
        port = urlsplit(stand_in.url).port
        assert port is not None
        line = await self._stack.enter_async_context(line_to(port))
        self._places[id] = stand_in, line
        settings = {"url": f"http://127.0.0.1:{line.port}/?name={id}"}
        await agent.do("POST", "/api/instance", {"id": id, "engine": "web", "settings": settings})
        await until(agent, id, "QR_REQUIRED")
        stand_in.scan(f"55119999999{len(self._places):02d}", id)
        await until(agent, id, "CONNECTED")

    async def say(self, id: str, contact: str, text: str, number: int) -> str:
        told = {"from": f"{contact}@c.us", "id": f"3EB0IN{number:08d}", "body": text}
        self._places[id][0].deliver("message", **told)
        return told["id"]

    async def got(self, id: str) -> list[Sent]:
        arrived = self._places[id][0].arrived
        return [(str(told.get("body")), message) for message, told in arrived.items()]

    async def cut(self, seconds: float) -> None:
        await cut_all([line for _, line in self._places.values()], seconds)


async def cut_all(lines: Sequence[Line], seconds: float) -> None:
    for line in lines:
        await line.cut()
    try:
        await asyncio.sleep(seconds)
    finally:
        for line in lines:
            await line.mend()


async def ask(agent: RunningAgent, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """An answer that says what became of it; NotNow for one that another moment would change."""
    try:
        async with asyncio.timeout(30):
            status, said = await agent.ask(method, path, body, headers)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise NotNow(str(error)) from error
    if status in (409, 429, 502, 503, 504, 507):
        raise NotNow(str(said))
    if status >= 300:
        raise HostError(f"{method} {path.partition('?')[0]} is refused with {status}: {said}")
    return said


async def until(agent: RunningAgent, id: str, status: str) -> None:
    try:
        async with asyncio.timeout(CONNECTED):
            while await agent.status(id) != status:  # noqa: ASYNC110 - over its API
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise HostError(f"{id} is not {status} within {CONNECTED:.0f} s") from None
