"""The stand-in's HTTP side: the routes of each preset, tokens that expire, faults on command."""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.ports import free_port
from tests.standin.whaticket.keys import FolderKeys
from tests.standin.whaticket.session import Faults, Pace, Session

USER, PASSWORD = "admin@whaticket.com", "admin"
_EXPIRED = {"error": "Invalid token. We'll try to assign a new one on next request"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Log:
    """The file that the server's output goes into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def __call__(self, text: str) -> None:
        self._file.write(text.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


class StandIn:
    """A whaticket-like server of one preset."""

    def __init__(self, root: Path, *, preset: str = "spec", pace: Pace | None = None) -> None:
        self.preset = preset
        self.keys = FolderKeys(root / "auth")
        self.log = Log(root / "logs" / "app.log")
        self.faults, self.pace = Faults(), pace or Pace()
        self.sessions: dict[str, Session] = {}
        self.under = ""
        """The name under which its list stands, as some forks write it; "" = none."""
        self.requests: list[str] = []
        self.logins = 0
        self._tokens: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, root: Path, **how: Any) -> AsyncIterator["StandIn"]:
        stand_in = cls(root, **how)
        await stand_in.listen()
        try:
            yield stand_in
        finally:
            await stand_in.close()

    async def listen(self) -> None:
        app = web.Application(middlewares=[self._guard])
        self._add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        # One that no other program can get while this one is away.
        self.port = self.port or free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

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
        self.requests.append(f"{request.method} {request.path}")
        if request.path != "/auth/login":
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
        return web.json_response({self.under: rows} if self.under else rows)

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

    def _session(self, request: web.Request) -> Session:
        return self.sessions[request.match_info["id"]]
