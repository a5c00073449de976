"""A line to a server that a test can cut: the network between a session and what it needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.listener import Listener
from tests.ports import free_port


class Line:
    """Carries bytes to `target` while it is whole; cut, it refuses, or accepts and is silent."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener: Listener | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent = False
        self.port = free_port()
        self.taken = 0
        """Connections that were carried."""

    async def mend(self) -> None:
        self._silent = False
        if self._listener is None:
            self._listener = await Listener(self._carry).open(port=self.port)
        else:
            self._drop_all()

    async def cut(self, *, silent: bool = False) -> None:
        self._silent = silent
        if self._listener is not None and not silent:
            await self._listener.close()
            self._listener = None
        self._drop_all()

    def _drop_all(self) -> None:
        for task in self._pumps:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._silent:
            return
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(back)
            self.taken += 1
            for source, sink in ((reader, back), (there, writer)):
                task = asyncio.create_task(_pump(source, sink))
                self._pumps.add(task)
                task.add_done_callback(self._pumps.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    line = Line(port)
    await line.mend()
    try:
        yield line
    finally:
        await line.cut()
