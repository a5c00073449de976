"""The stand-in's HTTP side: the routes of each preset, tokens that expire, faults on command."""

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.ports import free_port
from tests.standin.whaticket.keys import FolderKeys, Keys
from tests.standin.whaticket.session import Faults, Pace, Session

USER, PASSWORD = "admin@whaticket.com", "admin"
SEND_KEY = "the-api-token"
_EXPIRED = {"error": "Invalid token. We'll try to assign a new one on next request"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Log:
    """The file that the server's output goes into; rotated as logrotate does it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def __call__(self, text: str) -> None:
        self._file.write(text.encode() + b"\n")

    def raw(self, piece: bytes) -> None:
        self._file.write(piece)

    def cut(self) -> None:
        """copytruncate."""
        os.truncate(self.path, 0)

    def close(self) -> None:
        self._file.close()


class StandIn:
    """A whaticket-like server of one preset."""

    def __init__(
        self,
        root: Path,
        *,
        preset: str = "spec",
        keys: Keys | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.preset = preset
        self.keys: Keys = keys or FolderKeys(root / "auth")
        self.log = Log(root / "logs" / "app.log")
        self.faults, self.pace = Faults(), pace or Pace()
        self.sessions: dict[str, Session] = {}
        self.requests: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.logins = 0
        self._tokens: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, root: Path, *, tls: ssl.SSLContext | None = None, port: int = 0, **how: Any
    ) -> AsyncIterator["StandIn"]:
        stand_in = cls(root, **how)
        await stand_in.listen(tls=tls, port=port)
        try:
            yield stand_in
        finally:
            await stand_in.close()

    async def listen(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        app = web.Application(middlewares=[self._guard])
        self._add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        # One that no other program can get while this one is away.
        self.port = port or self.port or free_port()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls)
        await site.start()

    async def go_away(self) -> None:
        """The process is gone: its port is closed."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def close(self) -> None:
        for session in self.sessions.values():
            await session.end()
        await self.go_away()
        self.log.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, id: str, name: str = "") -> Session:
        session = Session(id, name or f"wa {id}", self.keys, self.log, self.faults, self.pace)
        self.sessions[id] = session
        return session

    def expire_tokens(self) -> None:
        self._tokens = dict.fromkeys(self._tokens, 0.0)

    def _add_routes(self, app: web.Application) -> None:
        add = app.router.add_route
        add("POST", "/auth/login", self._log_in)
        add("GET", "/whatsapp/", self._list)
        add("POST", "/whatsapp/", self._create)
        add("GET", "/whatsapp/{id}", self._state)
        add("POST", "/api/messages/send", self._send)
        add("POST", "/standin", self._command)
        if self.preset == "spec":
            add("PUT", "/whatsapp/{id}/disconnect", self._disconnect)
            add("PUT", "/whatsapp/{id}/start-session", self._start)
        else:
            add("POST", "/whatsappsession/{id}", self._start)
            add("PUT", "/whatsappsession/{id}", self._new_qr)
        if self.preset == "ticketz":
            add("GET", "/whatsappsession/refresh/{id}", self._refresh)
        add("DELETE", "/whatsappsession/{id}", self._log_out)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/standin":
            return await handler(request)
        self.requests.append(f"{request.method} {request.path}")
        faults = self.faults
        if faults.slow:
            await asyncio.sleep(faults.slow)
        if faults.dead:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if faults.garbage:
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        if faults.failing:
            return web.json_response({"error": "Internal server error"}, status=500)
        if request.path not in ("/auth/login", "/api/messages/send"):
            if not request.headers.get("Authorization"):
                return web.json_response({"error": "ERR_SESSION_EXPIRED"}, status=401)
            token = request.headers["Authorization"].removeprefix("Bearer ")
            if self._tokens.get(token, 0.0) < time.monotonic():
                return web.json_response(_EXPIRED, status=403)
        with contextlib.suppress(KeyError):
            id = request.match_info["id"]
            if id not in self.sessions:
                return web.json_response({"error": "ERR_NO_WAPP_FOUND"}, status=404)
        return await handler(request)

    async def _log_in(self, request: web.Request) -> web.Response:
        told = await request.json()
        if (told.get("email"), told.get("password")) != (USER, PASSWORD):
            return web.json_response({"error": "ERR_INVALID_CREDENTIALS"}, status=401)
        self.logins += 1
        token = f"jwt{self.logins}." + os.urandom(12).hex()
        self._tokens[token] = time.monotonic() + 900.0
        return web.json_response({"token": token, "user": {"id": 1, "profile": "admin"}})

    async def _list(self, _request: web.Request) -> web.Response:
        rows = [session.row() for session in self.sessions.values()]
        return web.json_response(rows)

    async def _create(self, request: web.Request) -> web.Response:
        told = await request.json()
        id = str(max((int(i) for i in self.sessions if i.isdigit()), default=0) + 1)
        return web.json_response(self.add(id, told["name"]).row())

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self._session(request).row())

    async def _start(self, request: web.Request) -> web.Response:
        if status := self.faults.refuses_start:
            return web.json_response({"error": "ERR_CREATING_SESSION"}, status=status)
        self._session(request).start()
        return web.json_response({"message": "Starting session."})

    async def _new_qr(self, request: web.Request) -> web.Response:
        session = self._session(request)
        await session.end()
        await self.keys.wipe(session.id)
        session.start()
        return web.json_response({"message": "Starting session."})

    async def _disconnect(self, request: web.Request) -> web.Response:
        await self._session(request).disconnect()
        return web.json_response({"message": "Session disconnecting."})

    async def _refresh(self, request: web.Request) -> web.Response:
        session = self._session(request)
        await session.end()
        session.status = "PENDING"
        session.start()
        return web.json_response({"message": "Session refreshed."})

    async def _log_out(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if self.preset == "community" and session.status == "DISCONNECTED":
            return web.json_response({"error": "ERR_WAPP_NOT_INITIALIZED"}, status=400)
        await session.log_out()
        return web.json_response({"message": "Session disconnected."})

    async def _send(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        tokens = {session.token for session in self.sessions.values()} | {SEND_KEY}
        if token not in tokens:
            return web.json_response({"error": "ERR_SESSION_EXPIRED"}, status=401)
        self.sent.append(await request.json())
        return web.json_response({"mensagem": "Mensagem enviada"})

    async def _command(self, request: web.Request) -> web.Response:
        """For who runs it alone: {"do": "fault", "name": "slow", "value": 2}, {"do": "damage",
        "id": "1", "peer": "5511..."}, receive, scan, drop, log_out, start, expire, state."""
        told = json.loads(await request.text())
        do, id = told["do"], str(told.get("id", ""))
        match do:
            case "fault":
                setattr(self.faults, told["name"], told["value"])
            case "expire":
                self.expire_tokens()
            case "log":
                self.log(told["text"])
            case "receive":
                return web.json_response({"read": self.sessions[id].receive(told["peer"])})
            case "damage":
                await self.sessions[id].damage(told["peer"])
            case "scan":
                self.sessions[id].scan()
            case "start":
                self.sessions[id].start()
            case "drop":
                await self.sessions[id].drop()
            case "log_out":
                await self.sessions[id].log_out()
            case "state":
                return web.json_response({"requests": self.requests, "sent": self.sent})
            case _:
                return web.json_response({"error": "unknown"}, status=400)
        return web.json_response({})

    def _session(self, request: web.Request) -> Session:
        return self.sessions[request.match_info["id"]]
