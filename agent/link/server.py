"""The worker's side of the link: greet the agent, tell it what happens, take its calls.

Nothing here can block or end the worker: what an agent does not read is dropped, oldest
happenings first, while the newest claim always waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from agent.core.words import Claim, Happening
from agent.errors import EngineError, LinkError, WaError
from agent.link.allowance import Allowance
from agent.link.limits import ServerLimits
from agent.link.messages import (
    Call,
    Hello,
    check_version,
    malformed,
    read_agents,
    read_call,
    refusal,
    reply,
)
from agent.link.outbox import Outbox
from agent.link.sockets import inode_of, listen_at, remove_own
from agent.link.wire import Lines, encode

log = logging.getLogger(__name__)

Answer = Callable[[Call], Awaitable[Mapping[str, Any]]]
CurrentClaim = Callable[[], Claim | None]


class LinkServer:
    """Listens for as long as the worker lives; at most one agent is in charge."""

    _listener: asyncio.Server

    @classmethod
    async def open(
        cls,
        path: Path,
        hello: Hello,
        answer: Answer,
        current: CurrentClaim,
        limits: ServerLimits | None = None,
    ) -> "LinkServer":
        """`answer` does one call; `current` tells a new agent what is claimed at this moment."""
        sock = listen_at(path)
        server = cls(path, hello, answer, current, limits or ServerLimits())
        loop = asyncio.get_running_loop()
        server._listener = await loop.create_unix_server(lambda: _Connection(server), sock=sock)
        return server

    def __init__(
        self, path: Path, hello: Hello, answer: Answer, current: CurrentClaim, limits: ServerLimits
    ) -> None:
        self.hello = hello
        self.limits = limits
        self.refused = 0
        """Connections ended because of what was said on them."""
        self.strangers: set[_Connection] = set()
        self._path = path
        self._inode = inode_of(path)
        self._answer = answer
        self._current = current
        self._agent: _Connection | None = None
        self._outbox = Outbox(hello.run, limits.happenings)
        self._allowance = Allowance(limits.rate, limits.burst)
        self._later: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def linked(self) -> bool:
        """True while an agent is in charge."""
        return self._agent is not None

    @property
    def dropped(self) -> int:
        """Happenings that no agent read in time."""
        return self._outbox.dropped

    def claim(self, claim: Claim) -> None:
        if self._agent is not None:
            self._outbox.newest = claim
            self.pump()

    def happened(self, happening: Happening) -> None:
        self._outbox.happened(happening)
        self.pump()

    def pump(self) -> None:
        """Write what waits, as far as the agent reads and the rate allows."""
        agent = self._agent
        if agent is None:
            return
        while self._outbox.waits and agent.writable:
            if not self._allowance.take():
                if self._later is None:
                    self._later = asyncio.get_running_loop().call_later(0.1, self._go_on)
                return
            try:
                agent.write(self._outbox.pop())
            except LinkError as error:
                log.error("cannot send to the agent: %s", error)

    def take_over(self, agent: "_Connection") -> None:
        """The newest agent is in charge: an older connection may be a dead agent's."""
        if self._agent is not None:
            log.info("another agent connection took over")
            self._agent.end("replaced")
        self.strangers.discard(agent)
        self._agent = agent
        self._outbox.newest = self._current()
        self.pump()

    def forget(self, connection: "_Connection") -> None:
        self.strangers.discard(connection)
        if self._agent is connection:
            self._agent = None
            self._outbox.newest = None

    def take_call(self, call: Call, connection: "_Connection") -> None:
        if len(self._calls) >= self.limits.calls:
            busy = EngineError("too many calls at once", code="busy")
            connection.write(refusal(call.number, busy))
            return
        work = self._do(call, connection)
        task = asyncio.get_running_loop().create_task(work, name=f"call {call.number} {call.do}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def close(self) -> None:
        """Hang up on every agent; what was already written still goes out."""
        self._listener.close()
        if self._later is not None:
            self._later.cancel()
        calls = set(self._calls)
        if calls:
            # Who asked for the end is owed an answer; who asked for more is not.
            _, unfinished = await asyncio.wait(calls, timeout=0.2)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        for connection in [*self.strangers, *([self._agent] if self._agent else [])]:
            connection.hang_up()
        remove_own(self._path, self._inode)

    async def _do(self, call: Call, connection: "_Connection") -> None:
        try:
            line = encode(reply(call.number, await self._answer(call)))
        except WaError as error:
            line = encode(refusal(call.number, error))
        except Exception as error:
            log.exception("cannot %s: internal error", call.do)
            why = f"cannot {call.do}: {type(error).__name__}"
            line = encode(refusal(call.number, EngineError(why, code="internal")))
        connection.write_line(line)

    def _go_on(self) -> None:
        self._later = None
        self.pump()


class _Connection(asyncio.Protocol):
    """One connection, first a stranger's, after its greeting the agent's."""

    _transport: asyncio.Transport
    _deadline: asyncio.TimerHandle

    def __init__(self, server: LinkServer) -> None:
        self.writable = False
        self._server = server
        self._lines = Lines()
        self._greeted = False
        self._ended = False

    def write(self, message: Mapping[str, Any]) -> None:
        self.write_line(encode(message))

    def write_line(self, line: bytes) -> None:
        if not self._ended:
            self._transport.write(line)

    def end(self, why: str) -> None:
        """Drop the connection now, whatever is still unwritten."""
        self._ended = True
        log.debug("link ended: %s", why)
        self._transport.abort()

    def hang_up(self) -> None:
        self._ended = True
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        limits = self._server.limits
        self._deadline = asyncio.get_running_loop().call_later(
            limits.greeting, self._refuse, "no greeting in time"
        )
        self._server.strangers.add(self)
        if len(self._server.strangers) > limits.strangers:
            self._refuse("too many connections without a greeting")
            return
        self.writable = True
        self.write(self._server.hello.wire())

    def data_received(self, chunk: bytes) -> None:
        try:
            for line in self._lines.feed(chunk):
                if not self._ended:
                    self._accept(read_agents(line))
        except LinkError as error:
            if error.code == "version":
                self.write({"t": "refused", "why": str(error)})
                self._server.refused += 1
                self.hang_up()
            else:
                self._refuse(str(error))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._server.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.writable = False
        self._ended = True
        self._deadline.cancel()
        self._server.forget(self)

    def _accept(self, message: Mapping[str, Any]) -> None:
        kind = message.get("t")
        if kind == "refused":
            log.warning("the agent refused this worker: %.500r", message.get("why"))
            self.hang_up()
        elif kind == "hello":
            check_version(message.get("v"))
            if self._greeted:
                raise malformed("greeted twice")
            self._greeted = True
            self._deadline.cancel()
            self._server.take_over(self)
        elif not self._greeted:
            raise malformed("it came before the greeting")
        else:
            self._server.take_call(read_call(message), self)

    def _refuse(self, why: str) -> None:
        self._server.refused += 1
        log.warning("link refused: %s", why)
        self.end(why)
