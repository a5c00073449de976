"""Events are posted to a real server that answers by `status`, and keeps what it took."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.ports import free_port


@dataclass
class Taken:
    body: dict[str, Any]
    raw: bytes
    headers: dict[str, str]


@dataclass
class Receiver:
    taken: list[Taken] = field(default_factory=list)
    """Requests that were answered with 2xx, in order."""
    asked: list[Taken] = field(default_factory=list)
    """All requests that came."""
    status: Callable[[dict[str, Any]], int] = lambda body: 200
    headers: dict[str, str] = field(default_factory=dict)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _scheme: str = "http"

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/in"

    def ids(self) -> list[int]:
        return [one.body["id"] for one in self.taken]

    def sentences(self) -> list[str]:
        return [one.body["sentence"] for one in self.taken]

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        one = Taken(json.loads(raw), raw, dict(request.headers))
        self.asked.append(one)
        await self.answering.wait()
        status = self.status(one.body)
        if 200 <= status < 300:
            self.taken.append(one)
        return web.Response(status=status, text=f"said {status}", headers=self.headers)

    @asynccontextmanager
    async def open(
        self, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["Receiver"]:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        # One that no other program can get between two openings.
        self.port = port or free_port()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=tls)
        await site.start()
        self._scheme = "http" if tls is None else "https"
        try:
            yield self
        finally:
            self.answering.set()
            await runner.cleanup()
