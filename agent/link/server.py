"""The worker's side of the link: greet the agent, tell it what happens, take its calls.

Nothing here can block or end the worker: what an agent does not read is dropped, oldest events
first, while the newest claim always waits for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from agent.core.words import KEPT, Claim, Happening
from agent.errors import EngineError, LinkError, WaError
from agent.link.wire import VERSION, Call, Hello, Lines, encode, listen_at, read_call, reply

log = logging.getLogger(__name__)

Answer = Callable[[Call], Awaitable[Mapping[str, Any]]]
CurrentClaim = Callable[[], Claim | None]

MOST_EVENTS = 500
"""Events that are kept for an agent that is away or slow to read."""
MOST_STRANGERS = 8
"""Connections that have not said hello; one more ends the oldest."""


class LinkServer:
    """Listens for as long as the worker lives; at most one agent is in charge."""

    _listener: asyncio.Server

    @classmethod
    async def open(
        cls, path: Path, hello: Hello, answer: Answer, current: CurrentClaim
    ) -> "LinkServer":
        """Open the server. `answer` does one call; `current` returns the claim for a new agent."""
        server, loop = cls(path, hello, answer, current), asyncio.get_running_loop()
        made = partial(_Connection, server)
        server._listener = await loop.create_unix_server(made, sock=listen_at(path))
        return server

    def __init__(self, path: Path, hello: Hello, answer: Answer, current: CurrentClaim) -> None:
        self.hello, self.closed = hello, False
        self.strangers: dict[_Connection, None] = {}
        self._path, self._answer, self._current = path, answer, current
        self._agent: _Connection | None = None
        self._newest: Claim | None = None
        """The claim that the agent has not heard."""
        self._kept: Happening | None = None
        self._events: deque[Happening] = deque(maxlen=MOST_EVENTS)
        self._calls: set[asyncio.Task[None]] = set()

    def claim(self, claim: Claim) -> None:
        self._newest = claim
        self.pump()

    def happened(self, happening: Happening) -> None:
        if happening.kind == KEPT:  # the newest says it all
            self._kept = happening
        else:
            self._events.append(happening)
        self.pump()

    def pump(self) -> None:
        """Write what waits, as far as the agent reads."""
        while (agent := self._agent) is not None and agent.writable:
            if (message := self._pop()) is None:
                return
            try:
                agent.write(message)
            except LinkError as error:
                log.error("cannot send to the agent: %s", error)

    def _pop(self) -> Mapping[str, Any] | None:
        """Return the next message to tell; None while nothing waits."""
        claim, self._newest = self._newest, None
        if claim is not None:
            return {"t": "claim", "claim": asdict(claim)}
        what, self._kept = self._kept, None
        if what is None and self._events:
            what = self._events.popleft()
        return None if what is None else {"t": "event", "kind": what.kind, "detail": what.detail}

    def take_over(self, agent: "_Connection") -> None:
        """Put the newest agent in charge: an older connection may be a dead agent's."""
        old, self._agent, self._newest = self._agent, agent, self._current()
        if old is not None and old is not agent:
            old.end("another one took over")
        self.pump()

    def forget(self, connection: "_Connection") -> None:
        self.strangers.pop(connection, None)
        if self._agent is connection:
            self._agent = self._newest = None

    def take_call(self, call: Call, connection: "_Connection") -> None:
        task = asyncio.create_task(self._do(call, connection), name=f"call {call.number} {call.do}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """Hang up on every agent; what was already written still goes out."""
        self.closed = True
        self._listener.close()
        try:
            if calls := set(self._calls):
                # Who asked for the end is owed an answer; who asked for more is not.
                _, unfinished = await asyncio.wait(calls, timeout=0.2)
                for task in unfinished:
                    task.cancel()
                await asyncio.gather(*unfinished, return_exceptions=True)
        finally:  # also where a run is broken off: in a pack its process goes on
            for connection in filter(None, (*self.strangers, self._agent)):
                connection.hang_up()
            self._path.unlink(missing_ok=True)

    async def _do(self, call: Call, connection: "_Connection") -> None:
        try:
            connection.write(reply(call.number, await self._answer(call)))
        except WaError as error:
            connection.write(reply(call.number, error))
        except Exception as error:
            log.exception("cannot %s: internal error", call.do)
            why = EngineError(f"cannot {call.do}: {type(error).__name__}", code="internal")
            connection.write(reply(call.number, why))


class _Connection(asyncio.Protocol):
    """One connection, first a stranger's, after its `hello` the agent's."""

    _transport: asyncio.Transport
    writable = _ended = False

    def __init__(self, server: LinkServer) -> None:
        self._server, self._lines = server, Lines()

    def write(self, message: Mapping[str, Any]) -> None:
        line = encode(message)
        if not self._ended:
            self._transport.write(line)

    def end(self, why: str) -> None:
        """Drop the connection now, whatever is still unwritten."""
        self._ended = True
        self._server.forget(self)
        log.warning("ended a connection of an agent: %s", why)
        self._transport.abort()

    def hang_up(self) -> None:
        self._ended = True
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)  # what waits here is overtaken by no claim
        self.writable, strangers = True, self._server.strangers
        if self._server.closed:  # it was accepted just before
            self._transport.abort()
        strangers[self] = None
        if len(strangers) > MOST_STRANGERS:
            next(iter(strangers)).end("too many connections without a greeting")

    def data_received(self, chunk: bytes) -> None:
        try:
            for line in self._lines.feed(chunk):
                if not self._ended:
                    self._accept(read_call(line))
        except LinkError as error:
            self.end(str(error))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._server.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._server.forget(self)

    def _accept(self, call: Call) -> None:
        server = self._server
        if call.do == "hello":
            if (spoken := call.args.get("v")) != VERSION:
                words = f"cannot speak version {spoken!r:.40} of the link, only {VERSION}"
                self.write(reply(call.number, LinkError(words, code="version")))
                return
            server.strangers.pop(self, None)
            self.write(reply(call.number, asdict(server.hello)))
            server.take_over(self)
        elif self in server.strangers:
            self.end("a call came before the greeting")
        else:
            server.take_call(call, self)
