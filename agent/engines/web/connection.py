"""The debugger's connection over a pipe: the one place that knows pyppeteer.

pyppeteer's Connection speaks WebSocket over a TCP port that every local user may read; this
one speaks over two inherited pipes. Calls have a deadline, and giving one up harms no other.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from agent.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 64 * 1024 * 1024
BACKLOG_LIMIT = 8 * 1024 * 1024
"""Bytes that wait for a browser which does not read: it is stopped, or it hangs."""


@contextmanager
def _only_the_protocol() -> Iterator[None]:
    """Import pyppeteer.connection without its launcher, downloader and WebSocket client.

    They would be a third of the worker's memory, and none of them is used.
    """
    spec = find_spec("pyppeteer")
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(
            "cannot load the web engine: pyppeteer is missing; install it:"
            " pip install 'wa-agent[web]'",
            code="engine_not_installed",
        )
    package = ModuleType("pyppeteer")
    package.__path__ = list(spec.submodule_search_locations)
    sockets, legacy, client = (
        ModuleType(name) for name in ("websockets", "websockets.legacy", "websockets.legacy.client")
    )
    sockets.__dict__["ConnectionClosed"] = ConnectionError
    client.__dict__["connect"] = None
    stand_ins = {each.__name__: each for each in (package, sockets, legacy, client)}
    before = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name.split(".")[0] in ("pyppeteer", "websockets")
    }
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in list(sys.modules):
            if name.split(".")[0] in ("pyppeteer", "websockets"):
                del sys.modules[name]
        sys.modules.update(before)


with _only_the_protocol():
    from pyppeteer.connection import CDPSession, Connection
    from pyppeteer.errors import NetworkError


class PipeConnection(Connection):  # type: ignore[misc] # pyppeteer tells no types
    """pyppeteer's Connection with another transport and flat sessions."""

    def __init__(self, write: asyncio.WriteTransport, loop: asyncio.AbstractEventLoop) -> None:
        # Not Connection's own: that one opens a WebSocket.
        super(Connection, self).__init__()
        self._loop = loop
        self._lastId = 0
        self._callbacks: dict[int, asyncio.Future[Any]] = {}
        self._sessions: dict[str, FlatSession] = {}
        self._connected = True
        self._pipe = write

    def send(
        self, method: str, params: Mapping[str, Any] | None = None, session: str = ""
    ) -> asyncio.Future[Any]:
        if not self._connected:
            raise NetworkError("the browser is gone")
        if self._pipe.get_write_buffer_size() > BACKLOG_LIMIT:
            raise NetworkError("the browser does not read")
        self._lastId += 1
        message: dict[str, Any] = {"id": self._lastId, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.add_done_callback(_seen)
        self._callbacks[self._lastId] = answer
        self._pipe.write(json.dumps(message).encode() + b"\0")
        return answer

    def forget(self, answer: asyncio.Future[Any]) -> None:
        """Nobody waits for this one any more."""
        for number, each in self._callbacks.items():
            if each is answer:
                del self._callbacks[number]
                return

    def take(self, message: Mapping[str, Any]) -> None:
        number = message.get("id")
        if number is not None:
            self._settle(self._callbacks.pop(number, None), message)
            return
        method, params = str(message.get("method", "")), message.get("params") or {}
        if method == "Target.detachedFromTarget":
            gone = self._sessions.pop(str(params.get("sessionId")), None)
            if gone is not None:
                gone.emit("gone", params)
            return
        session = self._sessions.get(str(message.get("sessionId", "")))
        listener: Any = self if session is None else session
        try:
            listener.emit(method, params)
        except Exception:
            log.exception("cannot take %s from the browser", method)

    @staticmethod
    def _settle(answer: asyncio.Future[Any] | None, message: Mapping[str, Any]) -> None:
        # A call that was given up is done already: setting it again would end everything.
        if answer is None or answer.done():
            return
        if error := message.get("error"):
            answer.set_exception(NetworkError(str(error.get("message", error))[:500]))
        else:
            answer.set_result(message.get("result") or {})

    def drop(self, why: str) -> None:
        """The pipe is closed: every call that waits ends now."""
        if not self._connected:
            return
        self._connected = False
        waiting, self._callbacks = list(self._callbacks.values()), {}
        for answer in waiting:
            if not answer.done():
                answer.set_exception(NetworkError(why))
        self._sessions.clear()
        self._pipe.close()
        self.emit("gone", why)

    def add_session(self, kind: str, id: str) -> "FlatSession":
        session = FlatSession(self, kind, id, self._loop)
        self._sessions[id] = session
        return session


class FlatSession(CDPSession):  # type: ignore[misc]
    """A session whose messages are not packed into messages of the browser's own session."""

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._connection.send(method, params, self._sessionId)
        return answer


class _Reader(asyncio.Protocol):
    """Cuts the stream into messages; each ends with a zero byte."""

    def __init__(self, take: Callable[[Mapping[str, Any]], None], end: Callable[[str], None]):
        self._take, self._end = take, end
        self._parts: list[bytes] = []
        self._size = 0

    def data_received(self, data: bytes) -> None:
        *whole, rest = data.split(b"\0")
        for piece in whole:
            text = b"".join((*self._parts, piece))
            self._parts, self._size = [], 0
            try:
                message = json.loads(text)
            except (ValueError, RecursionError) as error:
                self._end(f"the browser sent nonsense: {error}")
                return
            self._take(message)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MESSAGE_LIMIT:
                self._end("the browser sent a message that is too long")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the browser closed its pipe{f': {error}' if error else ''}")


class Debugger:
    """What the rest of the engine knows of the connection: calls with deadlines, and events."""

    def __init__(self, connection: PipeConnection, session: FlatSession | None = None) -> None:
        self._connection = connection
        self._speaker: PipeConnection | FlatSession = session or connection

    @classmethod
    async def open(cls, read_fd: int, write_fd: int) -> "Debugger":
        """Take both descriptors over: answers come from the first, calls go into the second."""
        loop = asyncio.get_running_loop()
        calls, answers = os.fdopen(write_fd, "wb", 0), os.fdopen(read_fd, "rb", 0)
        write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, calls)
        connection = PipeConnection(write, loop)
        await loop.connect_read_pipe(lambda: _Reader(connection.take, connection.drop), answers)
        return cls(connection)

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, within: float
    ) -> Mapping[str, Any]:
        """EngineError `browser_silent` when no answer came in time, `browser_gone`, `browser`."""
        try:
            answer = self._speaker.send(method, params)
        except NetworkError as error:
            raise EngineError(f"cannot {method}: {error}", code="browser_gone") from error
        try:
            async with asyncio.timeout(within):
                # Shielded: pyppeteer's own futures are never cancelled while they wait.
                result: Mapping[str, Any] = await asyncio.shield(answer)
        except TimeoutError as error:
            raise EngineError(
                f"cannot {method}: no answer in {within:g} s", code="browser_silent"
            ) from error
        except NetworkError as error:
            code = "browser" if self.alive else "browser_gone"
            raise EngineError(f"cannot {method}: {error}", code=code) from error
        finally:
            if not answer.done():
                self._connection.forget(answer)
        return result

    def on(self, event: str, take: Callable[[Mapping[str, Any]], None]) -> None:
        self._speaker.on(event, take)

    @property
    def alive(self) -> bool:
        return bool(self._connection._connected)

    async def attach(self, target: str, *, within: float) -> "Debugger":
        """A session with one target."""
        told = await self.call(
            "Target.attachToTarget", {"targetId": target, "flatten": True}, within=within
        )
        session = self._connection.add_session("page", str(told["sessionId"]))
        return Debugger(self._connection, session)

    def close(self) -> None:
        self._connection.drop("closed")


def _seen(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()
