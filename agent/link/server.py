"""The worker's side of the link: greet the agent, tell it what happens, take its calls.

Nothing here can block or end the worker: what an agent does not read is dropped, oldest
happenings first, while the newest claim always waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.words import Claim, Happening, InstanceId, ServerClaim
from agent.errors import LinkError, WaError
from agent.link.allowance import Allowance
from agent.link.limits import INSTANCE_SERVER, ServerLimits
from agent.link.messages import (
    AgentHello,
    Call,
    Hello,
    Refused,
    Reply,
    parse_from_agent,
    parse_from_worker,
)
from agent.link.outbox import Outbox
from agent.link.sockets import inode_of, listen_at, remove_own
from agent.link.wire import Decoder, encode

log = logging.getLogger(__name__)

Answer = Callable[[Call], Awaitable[Mapping[str, Any]]]
CurrentClaims = Callable[[], Mapping[InstanceId, Claim]]
AnswersFor = Callable[[InstanceId], bool]


class LinkServer:
    """Listens for as long as the worker lives; at most one agent is in charge."""

    _listener: asyncio.Server

    @classmethod
    async def open(
        cls,
        path: Path,
        hello: Hello,
        answer: Answer,
        current: CurrentClaims,
        *,
        limits: ServerLimits = INSTANCE_SERVER,
        answers_for: AnswersFor | None = None,
    ) -> "LinkServer":
        """`answer` does one call; `current` tells a new agent what is claimed at this moment.

        `answers_for`: which ids a call may be about; None = this worker's own, no other.
        """
        sock = listen_at(path)
        server = cls(path, hello, answer, current, limits, answers_for)
        loop = asyncio.get_running_loop()
        server._listener = await loop.create_unix_server(lambda: _Connection(server), sock=sock)
        return server

    def __init__(  # noqa: PLR0917 - only `open` calls it
        self,
        path: Path,
        hello: Hello,
        answer: Answer,
        current: CurrentClaims,
        limits: ServerLimits,
        answers_for: AnswersFor | None,
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
        self._answers_for = answers_for
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

    def claim(self, id: InstanceId, claim: Claim) -> None:
        if self._agent is not None:
            self._outbox.claim(id, claim)
            self.pump()

    def server_claim(self, claim: ServerClaim) -> None:
        """Tell what the server behind this worker is like; every new agent hears the newest."""
        self._outbox.server_claim(claim)
        self.pump()

    def happened(self, id: InstanceId, happening: Happening) -> None:
        self._outbox.happened(id, happening)
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
            said = self._outbox.pop().wire()
            try:
                parse_from_worker(said)
                agent.write(said)
            except LinkError as error:
                # Said, it would end the link, and again with every next agent.
                log.error("cannot send to the agent: %s", error)

    def take_over(self, agent: "_Connection") -> None:
        """The newest agent is in charge: an older connection may be a dead agent's."""
        if self._agent is not None:
            log.info("another agent connection took over")
            self._agent.end("replaced")
        self.strangers.discard(agent)
        self._agent = agent
        self._outbox.new_agent(self._current())
        self.pump()

    def forget(self, connection: "_Connection") -> None:
        self.strangers.discard(connection)
        if self._agent is connection:
            self._agent = None
            self._outbox.no_agent()

    def take_call(self, call: Call, connection: "_Connection") -> None:
        if len(self._calls) >= self.limits.calls:
            connection.write(Reply(call.number, error="too many calls at once", code="busy").wire())
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
            if not self._may_ask_about(call.id):
                raise LinkError(
                    f"cannot {call.do} {call.id}: its worker does not hold it at the moment, as"
                    " while it is renewed; try again in some seconds",
                    code="not_found",
                )
            reply = Reply(call.number, await self._answer(call)).wire()
            frame = encode(reply)
        except WaError as error:
            refused = Reply(call.number, error=str(error)[:2000], code=error.code)
            frame = encode(replace(refused, field=(error.field or "")[:80]).wire())
        except Exception as error:
            log.exception("cannot %s: internal error", call.do)
            why = f"cannot {call.do}: {type(error).__name__}"
            frame = encode(Reply(call.number, error=why, code="internal").wire())
        connection.write_frame(frame)

    def _may_ask_about(self, id: InstanceId) -> bool:
        if self._answers_for is None:
            return id == self.hello.id
        return self._answers_for(id)

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
        self._decoder = Decoder()
        self._greeted = False
        self._ended = False

    def write(self, message: Mapping[str, Any]) -> None:
        self.write_frame(encode(message))

    def write_frame(self, frame: bytes) -> None:
        if not self._ended:
            self._transport.write(frame)

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
        self._decoder.feed(chunk)
        try:
            while not self._ended and (message := self._decoder.next_message()) is not None:
                self._accept(message)
        except LinkError as error:
            if error.code == "version":
                self.write(Refused(str(error)).wire())
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

    def _accept(self, raw: Mapping[str, Any]) -> None:
        message = parse_from_agent(raw)
        if isinstance(message, Refused):
            log.warning("the agent refused this worker: %s", message.why)
            self.hang_up()
        elif isinstance(message, AgentHello):
            if self._greeted:
                raise LinkError("cannot accept a message: greeted twice", code="malformed")
            self._greeted = True
            self._deadline.cancel()
            self._server.take_over(self)
        elif not self._greeted:
            raise LinkError(
                "cannot accept a message: it came before the greeting", code="malformed"
            )
        else:
            self._server.take_call(message, self)

    def _refuse(self, why: str) -> None:
        self._server.refused += 1
        log.warning("link refused: %s", why)
        self.end(why)
