"""Stands before the server: carries its requests, late or spoiled by the fault of its front."""

import time

import aiohttp
from aiohttp import web

from tests.standin.evolution.faults import Front
from tests.standin.evolution.meddling import Meddling

LIMIT = 120.0
HOP = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-encoding"})
"""Headers that speak of one connection only."""


class Proxy:
    """Made by `open`. `front` says what is wrong with it."""

    def __init__(self, port: int) -> None:
        self.front = Front("127.0.0.1", 0)
        self.asked: list[tuple[float, str]] = []
        """When, and the verb and path, of each request."""
        self._target = f"http://127.0.0.1:{port}"
        self._meddling = Meddling(self.front)
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=LIMIT), connector=aiohttp.TCPConnector(limit=0)
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    @classmethod
    async def open(cls, port: int) -> "Proxy":
        made = cls(port)
        await made._runner.setup()
        assert made._runner.server is not None
        await made.front.open(made._runner.server)
        return made

    async def close(self) -> None:
        await self.front.close()
        await self._runner.cleanup()
        await self._client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((time.time(), f"{request.method} {request.path}"))
        await request.read()
        # A request goes on when its client has gone, as it does in a proxy that delays.
        return await self._meddling.carry(request, self._carry)

    async def _carry(self, request: web.Request) -> web.StreamResponse:
        headers = {name: it for name, it in request.headers.items() if name.lower() not in HOP}
        asked = self._client.request(
            request.method,
            self._target + str(request.rel_url),
            data=await request.read(),
            headers=headers,
        )
        try:
            async with asked as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=502, text=f"<html>{error}</html>", content_type="text/html")
        return web.Response(status=answer.status, body=body, content_type=answer.content_type)
