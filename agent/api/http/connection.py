"""The connection of a client, with limits that the library lacks: the time of reading an answer,
and the number of connections.

127.0.0.1 is shared by all programs on this machine: connections that wait for a request give way,
and a client with rights has a place whatever the others do.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from agent.api.present import library_refusal
from agent.errors import TryLater

_PATIENCE = 1.0
"""Seconds that a WebSocket may be full: one whose client reads empties again and again."""


class TooManyConnections(TryLater):
    code, http = "too_many_connections", 429


@dataclass(slots=True)
class Entrance:
    head_seconds: float = 10.0
    """Seconds until the first head is there; a client that has its answer may be idle longer."""
    write_seconds: float = 60.0
    idle_seconds: float = 75.0
    """Seconds, more than a proxy keeps a connection or a client waits between two looks."""
    most: int = 2048
    """Connections; over it the one gives way that waits longest for a request. A client with rights
    may have half of them: it keeps out no other, nor the probes."""
    most_unread: int = 64
    """Connections whose client leaves an answer unread, or a WebSocket for a second: each may hold
    a megabyte. Over it the oldest gives way."""
    closing: bool = False
    """True while each answer is the last of its connection."""
    connections: set["Connection"] = field(default_factory=set)
    waiting: dict["Connection", None] = field(default_factory=dict)
    """Connections that wait for a request; the longest first."""
    unread: dict["Connection", None] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The lock of the one request without rights that begins."""

    def make_room(self) -> None:
        if len(self.unread) > self.most_unread:
            next(iter(self.unread)).give_way()
        if len(self.connections) > self.most and self.waiting:
            next(iter(self.waiting)).give_way()


class Connection(web.RequestHandler):
    def __init__(self, entrance: Entrance, server: web.Server, **options: Any) -> None:
        super().__init__(server, keepalive_timeout=entrance.idle_seconds, **options)
        self.local = False
        """True on the Unix socket."""
        self.address = self.here = "unknown"
        """The client's address, or `uid N` on the Unix socket; and the one that it came to."""
        self._entrance = entrance
        self._ended = False
        """True if the client sends no more, and waits for its answers."""
        self._holder = ""
        """The caller with rights that sent the last request; "" = a caller without."""
        self._full_since = 0.0
        """The loop's time since which data wait for the client to read, while `_paused`."""
        self._answered = 0
        """Number of requests whose answers are sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        self.local = sock.family == socket.AF_UNIX
        if self.local:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            self.address = f"uid {struct.unpack('3i', raw)[1]}"
        else:
            ends = map(transport.get_extra_info, ("peername", "sockname"))
            self.address, self.here = (str(end[0]) if end else "unknown" for end in ends)
        self._entrance.connections.add(self)
        super().connection_made(transport)
        self._next_keepalive_close_time = self._loop.time() + self._entrance.head_seconds
        self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        self._stand()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._stand()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may end its side when its request is sent; it gets its answer within the time
        of a head."""
        self._ended = self._busy() and not self._upgraded
        if self._ended:
            self._loop.call_later(self._entrance.head_seconds, self.force_close)
        return self._ended

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full_since = self._loop.time()
        self._loop.call_later(_PATIENCE if self._upgraded else 0.0, self._stand)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stand()

    async def admit(self, holder: str) -> None:
        """Requests without rights begin one at a time, so that no other waits for many of them; of
        a caller with rights, those over its share of the connections are refused."""
        self._holder, every, share = holder, self._entrance.connections, self._entrance.most // 2
        if not holder:
            async with self._entrance.turn:
                await asyncio.sleep(0)
            if self._over():
                raise ConnectionResetError("the client left before its turn")
        elif len(every) > share and sum(other._holder == holder for other in every) > share:
            self._ended = True  # its place is free again after this answer
            raise TooManyConnections(
                f"cannot answer: more than {share} connections of this caller are open; close some"
            )

    def give_way(self) -> None:
        transport, unread = self.transport, self in self._entrance.unread
        self._leave()
        if transport is not None and unread:
            transport.abort()  # close() would wait for the buffer
        else:  # without a word: on an idle connection it would answer the next request
            self.force_close()

    def _stand(self) -> None:
        """Among those that give way, where it waits for a request or for its client to read; not
        for the next request of a client with rights."""
        entrance, there = self._entrance, self in self._entrance.connections
        if not there or self._holder or self._busy():
            entrance.waiting.pop(self, None)
        else:
            entrance.waiting.setdefault(self)
        patience = _PATIENCE if self._upgraded else 0.0
        if there and self._paused and self._loop.time() - self._full_since >= patience:
            entrance.unread.setdefault(self)
        else:
            entrance.unread.pop(self, None)
        entrance.make_room()

    def _leave(self) -> None:
        self._entrance.connections.discard(self)
        self._stand()

    def _busy(self) -> bool:
        """A whole head has come.

        Counted here: the library takes a request from its queue one turn of the loop before it
        knows it as under way."""
        return self._answered < self._request_count or self._upgraded

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        transport = self.transport
        if (self._entrance.closing or self._ended) and not self._messages:
            resp.force_close()
        try:
            async with asyncio.timeout(self._entrance.write_seconds):
                answered = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            # close() would wait for the buffer that the client does not read.
            if transport is not None:
                transport.abort()
            return resp, True
        self._answered += 1
        if resp.status >= 400 and not self._holder:
            self._lingering_time = 0.0  # what a stranger sends on after a refusal is not parsed
        self._stand()
        if isinstance(resp, web.Response):
            # The library holds the answer until the next request: a scrape is megabytes.
            resp.body = None
        return answered

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer the library's own refusals in the envelope of all errors."""
        if isinstance(exc, ConnectionError) and self._over():
            raise exc  # the client is gone: the library ends the connection in silence
        if status >= 500:
            self.logger.error("cannot answer a request: %r", exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        answer = library_refusal(431 if isinstance(exc, LineTooLong) else status)
        answer.force_close()
        return answer

    def log_exception(self, *said: Any, **more: Any) -> None:
        """Log the library's error, unless the connection ended: it was skipping a body's rest."""
        if not self._over():
            super().log_exception(*said, **more)

    def _over(self) -> bool:
        return self.transport is None or self.transport.is_closing()


def connection_of(request: web.Request) -> Connection:
    assert isinstance(request.protocol, Connection)
    return request.protocol
