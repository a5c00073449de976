"""The debugger's connection over two inherited pipes: calls with deadlines, and events.

The protocol is Chrome's: JSON messages, each ended by a zero byte. No port is opened, through which
each local user could read the session.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import EngineError

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 64 * 1024 * 1024
BACKLOG_LIMIT = 8 * 1024 * 1024
"""Bytes that wait for a browser which does not read: it is stopped, or it hangs."""

Take = Callable[[Mapping[str, Any]], None]


class _Refused(Exception):
    """The browser's refusal of one call, or the end of the pipe for all of them."""


class _Pipe:
    """Numbers the calls, hands each answer to its call, and each event to its listener."""

    def __init__(self, write: asyncio.WriteTransport) -> None:
        self.alive = True
        self._write = write
        self._last = 0
        self.waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._listeners: dict[tuple[str, str], list[Take]] = {}

    def send(
        self, session: str, method: str, params: Mapping[str, Any]
    ) -> tuple[int, asyncio.Future[Mapping[str, Any]]]:
        if not self.alive:
            raise _Refused("the browser is gone")
        if self._write.get_write_buffer_size() > BACKLOG_LIMIT:
            raise _Refused("the browser does not read")
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting[self._last] = answer
        self._write.write(json.dumps(message).encode() + b"\0")
        return self._last, answer

    def listen(self, session: str, event: str, take: Take) -> None:
        self._listeners.setdefault((session, event), []).append(take)

    def take(self, message: Mapping[str, Any]) -> None:
        number = message.get("id")
        if number is not None:
            _settle(self.waiting.pop(number, None), message)
            return
        key = (str(message.get("sessionId") or ""), str(message.get("method", "")))
        for take in self._listeners.get(key, ()):
            try:
                take(message.get("params") or {})
            except Exception:
                log.exception("cannot take %s from the browser", key[1])

    def drop(self, why: str) -> None:
        """End every call that waits: the pipe is closed."""
        if not self.alive:
            return
        self.alive = False
        waiting, self.waiting = self.waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(_Refused(why))
                answer.exception()  # a call that was given up is no error
        self._listeners.clear()
        self._write.close()


def _settle(answer: "asyncio.Future[Mapping[str, Any]] | None", message: Mapping[str, Any]) -> None:
    if answer is None or answer.done():
        return
    if error := message.get("error"):
        words = error.get("message", error) if isinstance(error, Mapping) else error
        answer.set_exception(_Refused(str(words)[:500]))
    else:
        answer.set_result(message.get("result") or {})


class _Reader(asyncio.Protocol):
    """Cuts the stream into messages; each ends with a zero byte."""

    def __init__(self, take: Take, end: Callable[[str], None]):
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
            if not isinstance(message, dict):
                self._end("the browser sent nonsense: no object")
                return
            self._take(message)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MESSAGE_LIMIT:
                self._end("the browser sent a message that is too long")

    def connection_lost(self, error: Exception | None) -> None:
        more = f": {error}" if error else ""
        self._end(f"the browser closed its pipe{more}")


class DebuggerConnection:
    """A connection to the browser itself, or to one target of it."""

    def __init__(self, pipe: _Pipe, session: str = "") -> None:
        self._pipe = pipe
        self._session = session

    @classmethod
    async def open(cls, read_fd: int, write_fd: int) -> "DebuggerConnection":
        """Take both descriptors over: answers come from the first, calls go into the second."""
        loop = asyncio.get_running_loop()
        calls, answers = os.fdopen(write_fd, "wb", 0), os.fdopen(read_fd, "rb", 0)
        write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, calls)
        pipe = _Pipe(write)
        await loop.connect_read_pipe(lambda: _Reader(pipe.take, pipe.drop), answers)
        return cls(pipe)

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, within: float
    ) -> Mapping[str, Any]:
        """Call a method; EngineError `browser_silent` (too late), `browser_gone`, `browser`."""
        try:
            number, answer = self._pipe.send(self._session, method, params or {})
        except _Refused as error:
            raise EngineError(f"cannot {method}: {error}", code="browser_gone") from error
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError as error:
            why = f"cannot {method}: no answer in {within:g} s"
            raise EngineError(why, code="browser_silent") from error
        except _Refused as error:
            code = "browser" if self.alive else "browser_gone"
            raise EngineError(f"cannot {method}: {error}", code=code) from error
        finally:
            self._pipe.waiting.pop(number, None)

    def on(self, event: str, take: Take) -> None:
        self._pipe.listen(self._session, event, take)

    @property
    def alive(self) -> bool:
        return self._pipe.alive

    async def attach(self, target: str, *, within: float) -> "DebuggerConnection":
        """Return a session with one target."""
        asked = {"targetId": target, "flatten": True}
        raw = await self.call("Target.attachToTarget", asked, within=within)
        return DebuggerConnection(self._pipe, str(raw["sessionId"]))

    def close(self) -> None:
        self._pipe.drop("closed")
