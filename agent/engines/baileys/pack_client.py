"""A session's share of a pack's Node: spoken to as a client of its own, over the pack's socket."""

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.baileys.conversation import LONGEST_LINE, Conversation, OnEnd, OnEvent
from agent.errors import EngineError
from agent.files import short_path

FILE = "pack.json"
"""Beside the session's folder: the pack that the agent chose for it."""
NAME = re.compile(r"baileys-[1-9][0-9]{0,3}")
WITHIN = 20.0
"""Seconds until a pack that begins, or begins again, must be there."""
AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class PackPlace:
    name: str
    socket: Path


def read_place(folder: Path) -> PackPlace | None:
    """The pack of the session in this instance's folder; None = it has a Node of its own."""
    try:
        fd = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            raw = json.loads(file.read(4096))
        name, path = raw["pack"], raw["socket"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    good = isinstance(name, str) and NAME.fullmatch(name) and isinstance(path, str)
    return PackPlace(name, Path(path)) if good else None


class PackedClient(Conversation):
    """Ends with its connection; the pack's Node goes on with its other sessions."""

    hangs_after = 20.0
    """Longer than the pack's own limit: the pack says which of its sessions are hit."""

    def __init__(
        self, writer: asyncio.StreamWriter, place: PackPlace, on_event: OnEvent, on_end: OnEnd
    ) -> None:
        super().__init__(writer, self._hear)
        self.pid = 0
        self._place = place
        self._pass_on, self._on_end = on_event, on_end
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def join(
        cls,
        place: PackPlace,
        session: Path,
        on_event: OnEvent,
        on_end: OnEnd,
        find_parts: Callable[[], Awaitable[object]],
    ) -> "PackedClient":
        """`on_end` is called with the cause when the pack's Node ended, unless `close` or `kill`
        ended this share. `find_parts` raises what a pack lacks that does not run."""
        sock = await _connect(place, find_parts)
        folder = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            socket.send_fds(sock, [b"\n"], [folder])
        except OSError as error:
            sock.close()
            raise EngineError(f"cannot join pack {place.name}: {error.strerror}") from error
        finally:
            os.close(folder)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LONGEST_LINE)
        client = cls(writer, place, on_event, on_end)
        client._reading = asyncio.create_task(client._read(reader), name="packed client")
        try:
            async with asyncio.timeout(WITHIN + 10.0):
                greeting = await asyncio.shield(client.ready)
        except TimeoutError as error:
            await client.kill()
            raise EngineError(f"cannot join pack {place.name}: it does not answer") from error
        except BaseException:
            await client.kill()
            raise
        pid = greeting.get("pid")
        client.pid = pid if isinstance(pid, int) else 0
        return client

    async def close(self) -> None:
        """The pack closes the session's files; all was saved before."""
        await self.kill("it was closed")

    async def kill(self, why: str = "it was hung up") -> None:
        self.end(why)
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def _hear(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "ended":
            self.fatal = str(event.get("why", ""))[:300]
        else:
            self._pass_on(event)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        why = await self.read(reader)
        why = why or self.fatal or f"Node of pack {self._place.name}, which it shares, ended"
        if not self.end(why):
            return
        if self.ready.done():
            self._on_end(why)
        else:
            self.ready.set_exception(EngineError(why, code="node_failed"))


async def _connect(place: PackPlace, find_parts: Callable[[], Awaitable[object]]) -> socket.socket:
    deadline = time.monotonic() + WITHIN
    while True:
        try:
            return _reach(place.socket)
        except OSError as error:
            if time.monotonic() > deadline:
                raise EngineError(
                    f"cannot join pack {place.name}: its process does not run", code="node_failed"
                ) from error
            await find_parts()
        await asyncio.sleep(AGAIN)


def _reach(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        with short_path(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock
