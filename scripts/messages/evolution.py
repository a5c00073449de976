"""A real Evolution API 2.x with one session, which has the same load and is killed as often as a
session. Its consumers are a webhook, whose target is never killed, and its own store."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agent.errors import HostError
from scripts.messages.beds import CONNECTED, BaileysBed, Bed, NotNow
from scripts.messages.supervised import Supervised
from scripts.messages.tally import Tally
from scripts.real_evolution.bed import until
from scripts.real_evolution.server import RealServer
from tests.ports import free_port
from tests.standin.postgres import Postgres

_PATIENCE = 10.0
"""Seconds that a caller waits: the answer of a session that logs in may never come."""
_AWAY = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class EvolutionBot:
    codes = 1
    """Its pairing; nobody scans a second one."""

    def __init__(self, source: Path, folder: Path, bed: Bed) -> None:
        assert isinstance(bed, BaileysBed)
        folder.mkdir()
        folder.chmod(0o711)  # PostgreSQL runs as a user of its own
        self._bed, self._folder = bed, folder
        self._server = RealServer(source, folder / "server", bed.url)
        self.process = Supervised(
            self._server.command,
            folder / "server.log",
            folder=self._server.place,
            environment=self._server.env,
        )
        self._database: Postgres | None = None
        self._hook = free_port()
        self._runner: web.AppRunner | None = None
        self._told: list[tuple[str, str]] = []

    async def open(self, id: str) -> None:
        self._name = id
        await self._listen()
        self._database = await asyncio.to_thread(Postgres, self._folder / "pg")
        await asyncio.to_thread(self._server.use, self._database)
        self.process.begin()
        try:
            await until(self._server.is_up, CONNECTED)
            await until(lambda: self._server.make(id), CONNECTED)
            code = await until(lambda: self._server.code(id), CONNECTED)
            account = self._bed.new_account(id)
            await asyncio.to_thread(self._bed.whatsapp.scan, code, account)
            await until(self._is_open, CONNECTED)
        except TimeoutError:
            raise HostError(f"the session of {self._folder}/server.log is not connected") from None
        url = f"http://127.0.0.1:{self._hook}/"
        hook = {"enabled": True, "url": url, "events": ["MESSAGES_UPSERT"], "headers": {}}
        body = {"webhook": {**hook, "byEvents": False, "base64": False}}
        status, answer = await self._server.ask("POST", f"/webhook/set/{id}", body)
        assert status < 300, answer

    async def send(self, to: str, text: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                body = {"number": to, "text": text}
                path = f"/message/sendText/{self._name}"
                status, answer = await self._server.ask("POST", path, body)
        except _AWAY as error:
            raise NotNow(str(error)) from error
        if status >= 300:
            raise NotNow(str(answer))

    async def count(self, tally: Tally) -> None:
        for text, whatsapps in [*self._told]:
            tally.posted[text][whatsapps] += 1
        self._told.clear()
        asked = {"page": 1, "offset": 20_000}
        try:
            _, found = await self._server.ask("POST", f"/chat/findMessages/{self._name}", asked)
            rows = found["messages"]["records"]
        except (*_AWAY, LookupError, TypeError):
            return  # it starts
        for row in rows:
            text = str((row.get("message") or {}).get("conversation"))
            if text.startswith("in "):
                tally.read[text].add(row["id"])

    async def _is_open(self) -> bool:
        return await self._server.state(self._name) == "open"

    async def _listen(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._hook).start()

    async def _take(self, request: web.Request) -> web.Response:
        data: Any = (await request.json()).get("data") or {}
        text = str((data.get("message") or {}).get("conversation"))
        if text.startswith("in "):
            self._told.append((text, str(data["key"]["id"])))
        return web.Response()

    async def end(self) -> None:
        await self.process.end()
        await self._server.close()
        if self._database is not None:
            self._database.end()
        if self._runner is not None:
            await self._runner.cleanup()
