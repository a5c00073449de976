"""A real server with paired sessions and such that show a code, before the stand-in WhatsApp."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp

from scripts.real_evolution.server import RealServer, real_server
from tests.daemon.conftest import NOWHERE, RunningAgent
from tests.daemon.line import Line, line_to
from tests.ports import free_port
from tests.standin.baileys.run import WhatsApp, make_certificate

MADE_WITHIN = 60.0
"""Seconds for each step of a pairing."""
PAIRED_SHARE = 0.6
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
Seen = TypeVar("Seen")


@dataclass(slots=True)
class Bed:
    server: RealServer
    line: Line
    """From the server to WhatsApp."""
    whatsapp: WhatsApp
    paired: dict[str, str] = field(default_factory=dict)
    """Sessions and their accounts."""
    codes: list[str] = field(default_factory=list)
    """Sessions that wait for a scan."""

    async def fill(self, sessions: int) -> None:
        paired = max(round(sessions * PAIRED_SHARE), 1)
        for number in range(sessions):
            name = f"{'paired' if number < paired else 'waits'}-{number:02}"
            await until(partial(self.server.make, name), MADE_WITHIN)
            code = await until(partial(self.server.code, name), MADE_WITHIN)
            if number < paired:
                self.paired[name] = f"5511900000{number:03}"
                await asyncio.to_thread(self.whatsapp.scan, code, self.paired[name])
                await until(partial(self.server.is_open, name), MADE_WITHIN)
            else:
                self.codes.append(name)


async def until(look: Callable[[], Awaitable[Seen]], within: float) -> Seen:
    """Return what `look` sees, once that is something; a request that fails saw nothing."""
    async with asyncio.timeout(within):
        while True:
            with suppress(aiohttp.ClientError, OSError, ValueError):
                if seen := await look():
                    return seen
            await asyncio.sleep(0.3)


@asynccontextmanager
async def open_bed(source: Path, place: Path, sessions: int) -> AsyncIterator[Bed]:
    tls = await asyncio.to_thread(make_certificate, place)
    whatsapp = await asyncio.to_thread(WhatsApp, place / "whatsapp.log", tls)
    try:
        async with line_to(urlsplit(whatsapp.url).port or 0) as line:
            address = f"ws://127.0.0.1:{line.port}/ws/chat"
            async with real_server(source, place, address, tls[1]) as server:
                bed = Bed(server, line, whatsapp)
                await bed.fill(sessions)
                yield bed
    finally:
        await asyncio.to_thread(whatsapp.end)


@asynccontextmanager
async def running_agent(place: Path, more: str, whatsapp: int) -> AsyncIterator[RunningAgent]:
    """`whatsapp`: the port of the line to it."""
    config = place / "agent.toml"
    config.write_text(SETTINGS + more)
    agent = RunningAgent(place / "state", config)
    agent.listen = f"127.0.0.1:{free_port()}"
    agent.first = NOWHERE.replace("[::1]:9", f"127.0.0.1:{whatsapp}").strip("; ")
    try:
        await agent.start({"CACHE_PATH": str(place / "cache")})
        yield agent
    finally:
        await agent.close()
