"""Sessions whose network can be taken away: sandboxes, browsers, sessions of a stand-in server."""

import asyncio
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from agent.engines.web.fetch import fetch_bundle
from tests.daemon.conftest import RunningAgent
from tests.daemon.line import Line, line_to
from tests.standin.evolution.server import KEY
from tests.standin.evolution.server import StandIn as Server
from tests.standin.web.stand_in import StandIn as Page

ROOT = Path(__file__).parents[2]
# What follows a connection is as it comes; only the first start is not spread.
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
first_check = 0.2

[memory]
total = 0

[worker]
watchdog = 60
"""
UP_WITHIN = 240.0
TRIES = frozenset({"start", "connect", "restart", "reconnect"})


class Bed(Protocol):
    """Some sessions under an agent of their own."""

    agent: RunningAgent
    ids: list[str]

    async def cut(self, seconds: float) -> None:
        """Their network is away for so long, from now on; returns when it is back."""

    async def connected(self) -> set[str]:
        """Those that are connected, as their network's other end sees it too."""

    async def logins(self) -> int:
        """The most logins that one session has begun so far."""


class Sandboxes:
    def __init__(self, agent: RunningAgent, ids: list[str]) -> None:
        self.agent, self.ids = agent, ids

    async def cut(self, seconds: float) -> None:
        began = time.monotonic()
        await asyncio.gather(*(self.agent.fault(id, "drop", seconds) for id in self.ids))
        await asyncio.sleep(max(began + seconds - time.monotonic(), 0.0))

    async def connected(self) -> set[str]:
        return await connected(self.agent)

    async def logins(self) -> int:
        return await most_tries(self.agent, self.ids)


class Pages:
    def __init__(self, agent: RunningAgent, ids: list[str], line: Line) -> None:
        self.agent, self.ids, self._line = agent, ids, line

    async def cut(self, seconds: float) -> None:
        await self._line.cut(silent=True)
        await asyncio.sleep(seconds)
        await self._line.mend()

    async def connected(self) -> set[str]:
        return await connected(self.agent)

    async def logins(self) -> int:
        return await most_tries(self.agent, self.ids)


class Elsewhere:
    """The server comes back with no session connected, and connects none by itself."""

    def __init__(self, agent: RunningAgent, ids: list[str], server: Server) -> None:
        self.agent, self.ids, self._server = agent, ids, server

    async def cut(self, seconds: float) -> None:
        await self._server.front.set("refuse")
        for session in self._server.instances.values():
            session.unload()
            session.load(connects=False)
        await asyncio.sleep(seconds)
        await self._server.front.set("")

    async def connected(self) -> set[str]:
        there = {id for id, one in self._server.instances.items() if one.state == "open"}
        return there & await connected(self.agent)

    async def logins(self) -> int:
        asked = Counter[str]()
        for path, count in self._server.paths.items():
            act, _, name = path.rpartition("/")
            if act in ("GET /instance/connect", "POST /instance/restart"):
                asked[name] += count
        return max(asked.values(), default=0)


@asynccontextmanager
async def make_bed(kind: str, count: int, place: Path) -> AsyncIterator[Bed]:
    """Returns with all of them connected."""
    place.mkdir(parents=True)
    ids = [f"s{number}" for number in range(count)]
    match kind:
        case "sandbox":
            async with running_agent(place) as agent:
                await asyncio.gather(*(agent.create(id) for id in ids))
                await until_connected(bed := Sandboxes(agent, ids))
                yield bed
        case "web":
            page = await Page.open(qr_every=300, alive_every=0.5)
            try:
                port = urlsplit(page.url).port or 0
                async with line_to(port) as line, running_agent(place) as agent:
                    await pair_all(agent, ids, page, line)
                    await until_connected(web := Pages(agent, ids, line))
                    yield web
            finally:
                await page.close()
        case "backend":
            server = await Server.open()
            try:
                for id in ids:
                    server.add(id, "open")
                async with running_agent(place, declaration(server)) as agent:
                    await until_connected(elsewhere := Elsewhere(agent, ids, server))
                    yield elsewhere
            finally:
                await server.close()
        case _:
            raise ValueError(f"no such kind of session: {kind}")


@asynccontextmanager
async def running_agent(
    place: Path, more: str = "", listen: str = ""
) -> AsyncIterator[RunningAgent]:
    config = place / "agent.toml"
    config.write_text(SETTINGS + more)
    agent = RunningAgent(place / "state", config)
    agent.listen = listen
    cache = place / "cache"
    kept = Path(os.environ.get("WA_CACHE_PATH", ROOT / ".cache"))
    if (kept / "wa-js").is_dir():
        shutil.copytree(kept / "wa-js", cache / "wa-js")
    try:
        await agent.start({"CACHE_PATH": str(cache)})
        yield agent
    finally:
        await agent.close()


def declaration(server: Server) -> str:
    keys = {"name": "evo", "engine": "evolution", "url": server.url, "key": KEY}
    lines = [f'{name} = "{value}"' for name, value in keys.items()]
    return "\n".join(["\n[[backend]]", *lines, 'adopt = ["*"]', ""])


async def pair_all(agent: RunningAgent, ids: list[str], page: Page, line: Line) -> None:
    fetch_bundle(Path(os.environ.get("WA_CACHE_PATH", ROOT / ".cache")))
    for number, id in enumerate(ids):
        url = f"http://127.0.0.1:{line.port}/?name={id}"
        body = {"id": id, "engine": "web", "settings": {"url": url}}
        await agent.do("POST", "/api/instance", body)
        async with asyncio.timeout(UP_WITHIN):
            while await agent.status(id) != "QR_REQUIRED":  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        page.scan(f"55119999999{number:02}", id)


async def until_connected(bed: Bed) -> None:
    async with asyncio.timeout(UP_WITHIN):
        while await bed.connected() < set(bed.ids):  # noqa: ASYNC110 - asked over its API
            await asyncio.sleep(0.2)


async def connected(agent: RunningAgent) -> set[str]:
    shown = await agent.do("GET", "/api/instances?limit=500")
    up = (one for one in shown["instances"] if one["connection_status"] == "CONNECTED")
    return {str(one["id"]) for one in up}


async def most_tries(agent: RunningAgent, ids: list[str]) -> int:
    """Of one session: what the agent began that could log in."""

    async def count(id: str) -> int:
        story: list[tuple[str, Any]] = await agent.story(id)
        begun = [said.split(":")[0] for kind, said in story if kind in ("action", "repair")]
        return sum(word in TRIES for word in begun)

    return max([await count(id) for id in ids])
