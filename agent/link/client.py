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

from agent.core.words import Claim, Happening, InstanceId, ServerClaim
from agent.errors import EngineError, LinkError
from agent.link.allowance import Allowance
from agent.link.limits import INSTANCE_LINK, LinkLimits, LinkStats
from agent.link.messages import (
    AgentHello,
    Call,
    Claimed,
    FromWorker,
    Happened,
    Hello,
    Refused,
    Reply,
    ServerClaimed,
    parse_from_worker,
)
from agent.link.sockets import CheckPeer, Peer, reach_trusted
from agent.link.wire import Decoder, encode

log = logging.getLogger(__name__)

OnClaim = Callable[[InstanceId, str, Claim], None]
OnHappening = Callable[[InstanceId, str, Happening], None]
OnClose = Callable[[str], None]
OnServer = Callable[[str, ServerClaim], None]
SpeaksFor = Callable[[InstanceId], bool]


@dataclass(frozen=True, slots=True)
class _Ears:
    on_claim: OnClaim
    on_happening: OnHappening
    on_close: OnClose
    on_server: OnServer | None
    speaks_for: SpeaksFor | None


class Link(asyncio.Protocol):
    """One open, greeted, checked connection to a worker."""

    hello: Hello

    @classmethod
    async def open(  # noqa: PLR0917 - the three callbacks belong together
        cls,
        path: Path,
        expected: InstanceId,
        check_peer: CheckPeer,
        on_claim: OnClaim,
        on_happening: OnHappening,
        on_close: OnClose,
        *,
        timeout: float = 5.0,
        stats: LinkStats | None = None,
        limits: LinkLimits = INSTANCE_LINK,
        speaks_for: SpeaksFor | None = None,
        on_server: OnServer | None = None,
    ) -> "Link":
        """Return a usable link or raise LinkError; its code is the rule that was broken.

        `on_close` is called once when the link ends by itself, not after `close()`.
        `speaks_for`: which sessions a backend's worker may speak for; what it says of another
        one is dropped, it may just have been deleted. None: for `expected` alone, strictly.
        """
        stats = stats if stats is not None else LinkStats()
        try:
            sock, peer = reach_trusted(path, check_peer)
        except LinkError as error:
            stats.refused[error.code] += 1
            raise
        ears = _Ears(on_claim, on_happening, on_close, on_server, speaks_for)
        link = cls(expected, peer, ears, stats, limits)
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
        self, expected: InstanceId, peer: Peer, ears: "_Ears", stats: LinkStats, limits: LinkLimits
    ) -> None:
        self.peer = peer
        self._expected = expected
        self._ears = ears
        self._opened = False
        self._stats = stats
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[Hello] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._calls: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._last_call = 0
        self._why = ""
        self._allowance = Allowance(limits.rate, limits.burst)

    async def call(
        self,
        do: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        id: InstanceId | None = None,
    ) -> Mapping[str, Any]:
        """Ask the worker. EngineError carries its own code; LinkError: gone, busy or silent.

        `id`: whom it is about; None = whom the worker is called after.
        """
        about = self._expected if id is None else id
        if self._transport is None or self._closed.done():
            raise LinkError(f"cannot {do} {about}: the link is closed", code="gone")
        if len(self._calls) >= self._limits.calls:
            raise LinkError(f"cannot {do} {about}: too many calls at once", code="busy")
        # The worker gives up a little earlier, so that its own words arrive in time.
        deadline = max(timeout * 0.9, timeout - 0.2)
        number = self._last_call + 1
        frame = encode(Call(number, do, about, {"deadline": deadline, **(args or {})}).wire())
        self._last_call = number
        answer = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._transport.write(frame)
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
        self._decoder.feed(chunk)
        try:
            while not self._why and (message := self._decoder.next_message()) is not None:
                self._stats.messages += 1
                self._accept(parse_from_worker(message))
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
            self._ears.on_close(why)

    def _must_be_alive(self, expected: InstanceId) -> None:
        if self._closed.done() or self._why:
            why = self._why or "it greeted and hung up"
            raise LinkError(f"cannot reach the worker of {expected}: {why}", code="gone")

    def _accept(self, message: FromWorker) -> None:
        if isinstance(message, Reply):
            self._answer(message)
            return
        self._spend()
        if isinstance(message, Refused):
            self._end(f"the worker refused: {message.why}")
        elif isinstance(message, Hello):
            self._greet(message)
        elif not self._greeted.done():
            raise LinkError(
                "cannot accept a message: it came before the greeting", code="malformed"
            )
        elif not self._may_say(message):
            self._stats.refused["stranger"] += 1
        elif message.run != self._greeted.result().run:
            self._stats.refused["old_run"] += 1
        elif isinstance(message, ServerClaimed):
            assert self._ears.on_server is not None
            self._ears.on_server(message.run, message.claim)
        elif isinstance(message, Claimed):
            self._ears.on_claim(message.id, message.run, message.claim)
        elif isinstance(message, Happened):
            self._ears.on_happening(message.id, message.run, message.happening)

    def _may_say(self, message: Claimed | Happened | ServerClaimed) -> bool:
        """False: to be dropped. An instance's worker that speaks for another one is no more."""
        speaks_for = self._ears.speaks_for
        if isinstance(message, ServerClaimed):
            if self._ears.on_server is not None:
                return True
            about = "a server"
        elif speaks_for is not None:
            return speaks_for(message.id)
        elif message.id == self._expected:
            return True
        else:
            about = message.id
        raise LinkError(
            f"cannot accept a message: the worker of {self._expected} spoke for {about}",
            code="identity",
        )

    def _greet(self, hello: Hello) -> None:
        if self._greeted.done():
            raise LinkError("cannot accept a message: greeted twice", code="malformed")
        if hello.id != self._expected:
            raise LinkError(
                f"cannot accept the worker at {self._expected}: it says it is {hello.id}",
                code="identity",
            )
        assert self._transport is not None
        self._transport.write(encode(AgentHello().wire()))
        self._greeted.set_result(hello)

    def _answer(self, reply: Reply) -> None:
        answer = self._calls.get(reply.number)
        if answer is None:
            # Late answers to calls that were given up are expected; answers to nothing are not.
            if not 0 < reply.number <= self._last_call:
                raise LinkError("cannot accept a reply: nothing was asked", code="malformed")
            self._spend()
        elif answer.done():
            self._spend()
        elif reply.code:
            field = reply.field or None
            answer.set_exception(EngineError(reply.error, field=field, code=reply.code))
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
            self._transport.write(encode(Refused(str(error)).wire()))
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
