"""One session of one agent, its webhook's target, and a count of what reached whom."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.limits.watching import Watch
from scripts.messages.beds import BaileysBed, until
from tests.daemon.conftest import RunningAgent
from tests.listener import Listener
from tests.ports import free_port

ID = "s1"
PEOPLE = tuple(f"55119000010{n:02d}" for n in range(8))
"""Who write: the chats of the session."""
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
spread = 0
login_every = 0

[worker]
burst = 500

[reconnect]
base = 0.5
attempts = 1000
max = 5
breaker_failures = 100

[messages]
most = 400000

[[webhook]]
name = "consumer"
url = "http://127.0.0.1:{port}/"
private = true
kinds = ["message"]
oldest = true
"""
MEMORY = 640
"""MiB that the session may use: WhatsApp's side of a sandbox, which holds what is not taken yet,
is in its worker."""


@dataclass(slots=True)
class Target:
    """A webhook's target: refused while it is closed."""

    port: int = field(default_factory=free_port)
    got: list[dict[str, Any]] = field(default_factory=list)
    _listener: Listener | None = None

    async def open(self) -> None:
        self._listener = await Listener(self._serve).open(port=self.port)

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    async def until(self, count: int, within: float) -> None:
        """It has so many."""
        async with asyncio.timeout(within):
            while len({each["id"] for each in self.got}) < count:  # noqa: ASYNC110 - its own list
                await asyncio.sleep(0.1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            except asyncio.IncompleteReadError:
                return
            _, _, rest = head.partition(b"content-length:")
            body = json.loads(await reader.readexactly(int(rest.split(b"\r", 1)[0])))
            self.got.append({name: body.get(name) for name in ("cursor", "id", "text", "chat")})
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@dataclass(slots=True)
class Bed:
    agent: RunningAgent
    target: Target
    watch: Watch
    baileys: BaileysBed | None

    async def kept(self) -> int:
        """How many records its worker has."""
        path = f"/api/instance/{ID}/messages"
        newest = await self.agent.do("GET", f"{path}?after=newest")
        oldest = await self.agent.do("GET", f"{path}?after=0&limit=1")
        return int(newest["next"]) - int(oldest["oldest"]) + 1

    async def say(self, count: int, text: str) -> None:
        """Of one contact of a sandbox."""
        said = {"contact": PEOPLE[0], "text": text}
        more = {"count": count} if count > 1 else {}
        await self.agent.do("POST", f"/api/instance/{ID}/sandbox/say", {**said, **more})

    async def read_all(self) -> list[dict[str, Any]]:
        """By long poll, from the oldest on."""
        found: list[dict[str, Any]] = []
        after, more = 0, True
        while more:
            path = f"/api/instance/{ID}/messages?after={after}&limit=500&wait=5"
            page = await self.agent.do("GET", path)
            found += page["records"]
            after, more = page["next"], page["more"]
        return found


@asynccontextmanager
async def one_session(
    root: Path, engine: str, *, inside: Sequence[str] = (), first: str = ""
) -> AsyncIterator[Bed]:
    """Its webhook's target is closed. `inside`, `first`: see RunningAgent."""
    async with AsyncExitStack() as stack:
        baileys = BaileysBed(root) if engine == "baileys" else None
        if baileys is not None:
            await baileys.open(stack)
        target = Target()
        stack.push_async_callback(target.close)
        config = root / "agent.toml"
        config.write_text(SETTINGS.format(port=target.port), encoding="utf-8")
        agent = RunningAgent(root / "state", config)
        # Not forked from this program, whose memory it would begin with.
        agent.inside, agent.first = inside or ("env",), first
        stack.push_async_callback(agent.close)
        agent.state.mkdir(mode=0o700)
        if baileys is not None:
            (agent.state / "cache").symlink_to(baileys.cache)
        await agent.start({})
        if baileys is not None:
            await baileys.add(agent, ID)
        else:
            await agent.create(ID, memory_limit=MEMORY << 20)
            await until(agent, ID, "CONNECTED")
        yield Bed(agent, target, Watch(agent, ID), baileys)


def broke(said: int, records: list[dict[str, Any]], posted: list[dict[str, Any]]) -> list[str]:
    """A line for each thing that must not be: `said` messages were written."""
    gaps = [each for each in records if each["kind"] == "message_gap"]
    messages = [each for each in records if each["kind"] == "message"]
    ids = {each["id"] for each in messages}
    lines = []
    if gaps:
        lines.append(f"a reader was told of {sum(each.get('missing', 1) for each in gaps)} missing")
    if len(ids) != said:
        lines.append(f"{said} were written, {len(ids)} are kept")
    if len(ids) != len(messages):
        lines.append(f"{len(messages) - len(ids)} were kept twice")
    if missing := len(ids - {each["id"] for each in posted}):
        lines.append(f"{missing} did not reach the webhook")
    for chat in sorted({each["chat"] for each in posted}):
        firsts = list(dict.fromkeys(each["cursor"] for each in posted if each["chat"] == chat))
        if firsts != sorted(firsts):
            lines.append("the webhook got those of one chat in another order")
    return lines
