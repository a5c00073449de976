"""The agent's side of the link: reach one worker, check it, listen to it, call it.

What a worker says is refused when it is malformed, too much, or of another run; the
refusal is counted and ends the link, never the agent. Reconnecting is the caller's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.words import Claim, Happening, InstanceId
from agent.errors import EngineError, LinkError
from agent.link.allowance import Allowance
from agent.link.heard import (
    Claimed,
    Greeting,
    Heard,
    Refused,
    Reply,
    read_workers,
    shown,
    sound,
)
from agent.link.limits import LinkLimits, LinkStats
from agent.link.messages import VERSION, Hello, malformed
from agent.link.sockets import CheckPeer, Peer, reach_trusted
from agent.link.wire import Lines, encode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """Hears what a session says, each with the name of its run."""

    on_claim: Callable[[str, Claim], None]
    on_happening: Callable[[str, Happening], None]
    on_close: Callable[[str], None]
    """Called once when the link ends by itself, not after `close()`."""


class Link(asyncio.Protocol):
    """One open, greeted, checked connection to a worker."""

    hello: Hello

    @classmethod
    async def open(
        cls,
        path: Path,
        expected: InstanceId,
        check_peer: CheckPeer,
        listener: Listener,
        *,
        timeout: float = 5.0,
        stats: LinkStats | None = None,
        limits: LinkLimits | None = None,
    ) -> "Link":
        """Return a usable link or raise LinkError; its code is the rule that was broken."""
        stats = stats if stats is not None else LinkStats()
        try:
            sock, peer = reach_trusted(path, check_peer)
        except LinkError as error:
            stats.refused[error.code] += 1
            raise
        link = cls(expected, peer, listener, stats, limits or LinkLimits())
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: link, sock=sock)
        try:
            async with asyncio.timeout(timeout):
                link.hello = await asyncio.shield(link._greeted)
            link._must_be_alive(expected)
        except TimeoutError as error:
            stats.refused["silent"] += 1
            await link.close()
            raise LinkError(
                f"cannot greet the worker of {expected}: silent for {timeout:g} s", code="silent"
            ) from error
        except BaseException:
            await link.close()
            raise
        stats.opened += 1
        link._opened = True
        return link

    def __init__(
        self,
        expected: InstanceId,
        peer: Peer,
        listener: Listener,
        stats: LinkStats,
        limits: LinkLimits,
    ) -> None:
        self.peer = peer
        self._expected = expected
        self._listener = listener
        self._opened = False
        self._stats = stats
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._lines = Lines()
        loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[Hello] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._calls: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._last_call = 0
        self._why = ""
        self._allowance = Allowance(limits.rate, limits.burst)

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        """Ask the worker. EngineError carries its own code; LinkError: gone, busy or silent."""
        about = self._expected
        if self._transport is None or self._closed.done():
            raise LinkError(f"cannot {do} {about}: the link is closed", code="gone")
        if len(self._calls) >= self._limits.calls:
            raise LinkError(f"cannot {do} {about}: too many calls at once", code="busy")
        # The worker gives up a little earlier, so that its own words arrive in time.
        deadline = max(timeout * 0.9, timeout - 0.2)
        number = self._last_call + 1
        told = {"deadline": deadline, **(args or {})}
        line = encode({"t": "call", "n": number, "do": do, "args": told})
        self._last_call = number
        answer = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._transport.write(line)
            async with asyncio.timeout(timeout):
                value: Mapping[str, Any] = await answer
                return value
        except TimeoutError as error:
            raise LinkError(
                f"cannot {do} {about}: no answer in {timeout:g} s", code="timeout"
            ) from error
        finally:
            del self._calls[number]

    async def close(self) -> None:
        """Hang up; the worker keeps its session."""
        self._opened = False
        if self._transport is not None:
            self._transport.abort()
            await asyncio.shield(self._closed)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, chunk: bytes) -> None:
        try:
            for line in self._lines.feed(chunk):
                if not self._why:
                    self._stats.messages += 1
                    self._accept(read_workers(line))
        except LinkError as error:
            self._refuse(error)
        except Exception:
            log.exception("cannot take a message of %s", self._expected)
            self._end("internal")

    def connection_lost(self, error: Exception | None) -> None:
        why = self._why or (f"connection lost: {error}" if error else "the worker hung up")
        gone = LinkError(f"cannot reach the worker of {self._expected}: {why}", code="gone")
        if not self._greeted.done():
            self._greeted.set_exception(gone)
            self._greeted.exception()  # may have no reader any more
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(gone)
        self._closed.set_result(None)
        if self._opened:
            self._listener.on_close(why)

    def _must_be_alive(self, expected: InstanceId) -> None:
        if self._closed.done() or self._why:
            why = self._why or "it greeted and hung up"
            raise LinkError(f"cannot reach the worker of {expected}: {why}", code="gone")

    def _accept(self, message: Heard) -> None:
        if isinstance(message, Reply):
            self._answer(message)
            return
        self._spend()
        if isinstance(message, Refused):
            self._end(f"the worker refused: {shown(message.why, 500)}")
        elif isinstance(message, Greeting):
            self._greet(message.hello())
        elif not self._greeted.done():
            raise malformed("it came before the greeting")
        elif message.run != self._greeted.result().run:
            self._stats.refused["old_run"] += 1
        elif isinstance(message, Claimed):
            self._listener.on_claim(message.run, sound(message.claim))
        else:
            self._listener.on_happening(message.run, Happening(message.kind, message.detail))

    def _greet(self, hello: Hello) -> None:
        if self._greeted.done():
            raise malformed("greeted twice")
        if hello.id != self._expected:
            raise LinkError(
                f"cannot accept the worker at {self._expected}: it says it is {hello.id}",
                code="identity",
            )
        assert self._transport is not None
        self._transport.write(encode({"t": "hello", "v": VERSION}))
        self._greeted.set_result(hello)

    def _answer(self, reply: Reply) -> None:
        answer = self._calls.get(reply.n)
        if answer is None:
            # Late answers to calls that were given up are expected; answers to nothing are not.
            if not 0 < reply.n <= self._last_call:
                raise malformed("nothing was asked")
            self._spend()
        elif answer.done():
            self._spend()
        elif reply.code:
            error, name = shown(reply.error, 2000), shown(reply.field, 80)
            answer.set_exception(EngineError(error, field=name or None, code=reply.code))
        else:
            answer.set_result(reply.value)

    def _spend(self) -> None:
        if not self._allowance.take():
            raise LinkError(
                f"cannot follow the worker of {self._expected}: more than"
                f" {self._limits.rate:g} messages a second",
                code="flood",
            )

    def _refuse(self, error: LinkError) -> None:
        self._stats.refused[error.code] += 1
        if self._transport is not None and error.code == "version":
            self._transport.write(encode({"t": "refused", "why": str(error)}))
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()
        self._end(str(error))

    def _end(self, why: str) -> None:
        self._why = self._why or why
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()
