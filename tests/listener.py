"""A server that a test talks to: it ends with all its connections, the youngest included."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """`asyncio.start_server` forgets a connection that it accepts while it closes, and one whose
    handler was cancelled before its first step: their sockets stay open until the garbage
    collector meets them, in the middle of another test."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._server: asyncio.Server
        self._writers: list[asyncio.StreamWriter] = []
        self._handlers: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(
        self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> "Listener":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._start),
            host,
            port,
            ssl=tls,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._server.sockets:
            loop.remove_reader(sock)
        await _some_steps()  # what was accepted becomes a connection
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await _some_steps()  # and its socket is closed

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def serve() -> None:
            await self._serve(reader, writer)

        self._writers.append(writer)
        handler = asyncio.create_task(serve())
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)


async def _some_steps() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Yield the listener's port."""
    listener = await Listener(serve).open(host, port, tls)
    try:
        yield listener.port
    finally:
        await listener.close()
