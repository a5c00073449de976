"""The agent's side of the link: reach one worker, check it, listen to it, call it.

What a worker says is refused when it is malformed; the refusal is counted and ends the link, never
the agent. A worker that says too much is read more slowly. Reconnecting is the caller's.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from msgspec import DecodeError, Meta, Struct, convert, field
from msgspec.json import Decoder

from agent.core.words import Claim, Happening, InstanceId
from agent.errors import EngineError, LinkError, WaError
from agent.link.wire import VERSION, Hello, Lines, encode, malformed, reach

log = logging.getLogger(__name__)


# Lines of a worker, which may be anybody's: msgspec reads and checks them. A field that is judged
# must be right; a field that a person will see is made printable.


T = TypeVar("T")

_CODE = re.compile(r"[a-z0-9_]{0,64}")
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,64}\Z")]


class Claimed(Struct, tag_field="t", tag="claim", frozen=True):
    claim: Claim


class Event(Struct, tag_field="t", tag="event", frozen=True):
    kind: Code
    detail: dict[str, Any]


class Reply(Struct, tag_field="t", tag="reply", frozen=True):
    """Answer to a call: a value, or an error with its stable code."""

    n: Annotated[int, Meta(ge=0, lt=2**53)]
    value: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: Code = ""
    field: str = ""
    """Name of the argument that is wrong, if one is."""


Heard = Claimed | Event | Reply
_decoder: Decoder[Heard] = Decoder(Heard)


def read_workers(line: bytes) -> Heard:
    return _checked(lambda: _decoder.decode(line))


def read_hello(value: dict[str, Any], expected: InstanceId) -> Hello:
    told = _checked(lambda: convert(value, Hello))
    if told.id != expected:
        words = f"cannot accept the worker at {expected}: it says it is {told.id!r:.60}"
        raise LinkError(words, code="identity")
    return Hello(expected, shown(told.run, 64), shown(told.engine, 64), told.pid)


def parse_claim(raw: object) -> Claim:
    return raw if isinstance(raw, Claim) else sound(_checked(lambda: convert(raw, Claim)))


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(shown(str(error), 200)) from error


def sound(claim: Claim) -> Claim:
    codes = (claim.reason, claim.phase, claim.guess, *claim.useless)
    if len(claim.useless) > 8 or not all(map(_CODE.fullmatch, codes)):
        raise malformed("not a short code")
    if not 0 <= (claim.progress or 0.0) <= 1:
        raise malformed("progress is not between 0 and 1")
    if (claim.proof_age or 0.0) < 0 or claim.still_for < 0:
        raise malformed("an age is negative")
    told = claim.raw, claim.account, claim.version
    raw, account, version = map(shown, told, (500, 128, 64))
    same = (raw, account, version) == told
    return claim if same else replace(claim, raw=raw, account=account, version=version)


def shown(text: str, limit: int) -> str:
    """Return text for people without control characters, which would reach terminals and logs."""
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


RATE, BURST = 200.0, 1000.0
"""Messages per second that are read from one worker in the long run, and how many more at once."""
MOST_CALLS = 64
"""Calls to one worker on their way at the same time."""


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
        pid: int,
        listener: Listener,
        *,
        timeout: float = 5.0,
    ) -> "Link":
        """Return a usable link to that process or raise LinkError; its code is the rule that was
        broken."""
        link = cls(expected, listener)
        try:
            await link._loop.create_unix_connection(lambda: link, sock=reach(path, pid))
            await link.call("hello", {"v": VERSION}, timeout=timeout)
            if link._why:
                raise LinkError(f"it greeted and ended: {link._why}", code="gone")
            link._opened = True
            return link
        except WaError as error:
            words = f"cannot greet the worker of {expected}: {error}"
            raise LinkError(words, code=error.code) from error
        finally:
            if not link._opened:
                await link.close()

    def __init__(self, expected: InstanceId, listener: Listener) -> None:
        self._about, self._listener = expected, listener
        self._lines, self._loop = Lines(), asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._calls: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._left, self._left_at = BURST, self._loop.time()
        # All is set here, or each link has a dictionary of its own.
        self._transport: asyncio.Transport | None = None
        self._opened, self._greeted, self._last_call = False, False, 0
        self._why = ""
        """Why the link ended; "" while it is open."""

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        """Ask the worker. EngineError carries its own code; LinkError: gone, busy or silent."""
        doing = f"cannot ask the worker of {self._about} for {do}"
        if self._transport is None or self._why:
            raise LinkError(f"{doing}: the link is closed", code="gone")
        if len(self._calls) >= MOST_CALLS:
            raise LinkError(f"{doing}: too many calls at once", code="busy")
        self._last_call = number = self._last_call + 1
        # The worker gives up a little earlier, so that its own words arrive in time.
        told = {"deadline": max(timeout * 0.9, timeout - 0.2), **(args or {})}
        line = encode({"t": "call", "n": number, "do": do, "args": told})
        answer = self._calls[number] = asyncio.Future[Mapping[str, Any]]()
        silent = LinkError(f"{doing}: no answer in {timeout:g} s", code="timeout")
        late = self._loop.call_later(timeout, _fail, answer, silent)
        try:
            self._transport.write(line)
            return await answer
        finally:
            late.cancel()
            del self._calls[number]

    async def close(self) -> None:
        """Hang up; the worker keeps its session."""
        self._opened = False
        self._end("it was closed")
        if self._transport is not None:
            await asyncio.shield(self._closed)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, chunk: bytes) -> None:
        try:
            for line in self._lines.feed(chunk):
                if not self._why:
                    self._left -= 1
                    self._accept(read_workers(line))
        except LinkError as error:
            self._end(str(error), None if self._greeted else error)
        except Exception:
            log.exception("cannot take a message of %s", self._about)
            self._end("internal")
        now = self._loop.time()
        self._left, self._left_at = min(BURST, self._left + (now - self._left_at) * RATE), now
        if self._left < 0 and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(-self._left / RATE, self._transport.resume_reading)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"connection lost: {error}" if error else "the worker hung up")
        self._closed.set_result(None)
        if self._opened:
            self._listener.on_close(self._why)

    def _accept(self, message: Claimed | Event | Reply) -> None:
        if isinstance(message, Reply):
            self._answer(message)
        elif not self._greeted:
            raise malformed("it came before the greeting")
        elif isinstance(message, Claimed):
            self._listener.on_claim(self.hello.run, sound(message.claim))
        else:
            self._listener.on_happening(self.hello.run, Happening(message.kind, message.detail))

    def _answer(self, reply: Reply) -> None:
        answer = self._calls.get(reply.n)
        if answer is None or answer.done():
            # Late answers to calls that were given up are expected; answers to nothing are not.
            if not 0 < reply.n <= self._last_call:
                raise malformed("nothing was asked")
        elif reply.code:
            error, name = shown(reply.error, 2000), shown(reply.field, 80)
            answer.set_exception(EngineError(error, field=name or None, code=reply.code))
        else:
            if not self._greeted:
                self.hello = read_hello(reply.value, self._about)
                self._greeted = True
            answer.set_result(reply.value)

    def _end(self, why: str, error: LinkError | None = None) -> None:
        """Hang up. Calls on their way fail with `error`, or as gone."""
        if self._why:
            return
        self._why = why
        gone = error or LinkError(f"cannot reach the worker of {self._about}: {why}", code="gone")
        for answer in self._calls.values():
            _fail(answer, gone)
        if self._transport is not None:
            self._transport.abort()


def _fail(answer: asyncio.Future[Mapping[str, Any]], error: LinkError) -> None:
    if not answer.done():
        answer.set_exception(error)
