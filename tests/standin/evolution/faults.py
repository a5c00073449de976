"""Faults of the whole server, at its socket and in its answers."""

import asyncio
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.ports import free_port

KINDS = ("", "slow", "refuse", "reset", "black_hole")
KINDS += ("garbage", "html", "failing", "licence", "refused", "half", "empty", "earlier")
KINDS += ("echo", "lost")


@dataclass
class Front:
    """Stands before the application: the listening socket, and its faults."""

    host: str
    port: int
    fault: str = ""
    seconds: float = 0.0
    """How slow "slow" is: the request arrives so much later."""
    up_to: float = 0.0
    """Where it is more: each request is late by another time, up to so much."""
    chance: random.Random = field(default_factory=random.Random)
    only: str = ""
    """Only paths that hold this are slow or failing."""
    packs: bool = False
    """True if it compresses all answers, though no client asked for that."""
    status: int = 400
    """Status that "echo" answers with; below 400 with the words that nothing was done."""

    @property
    def late(self) -> float:
        return self.chance.uniform(self.seconds, max(self.seconds, self.up_to))

    def __post_init__(self) -> None:
        self._factory: Callable[[], asyncio.BaseProtocol] | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.BaseTransport] = set()

    async def open(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._factory = factory
        # One that no other program can get while it is deaf.
        self.port = self.port or free_port()
        await self._listen()

    async def set(
        self, fault: str, seconds: float = 1.0, only: str = "", *, up_to: float = 0.0
    ) -> None:
        """The connections that are open break off, so that no client goes on with a good one."""
        if fault not in KINDS:
            raise ValueError(f"no such fault: {fault}")
        self.fault, self.seconds, self.only, self.up_to = fault, seconds, only, up_to
        if fault in ("refuse", "reset", "black_hole", "garbage"):
            self.break_off()
        if fault == "refuse":
            await self._deaf()
        elif self._server is None:
            await self._listen()

    async def close(self) -> None:
        await self._deaf()
        self.break_off()

    def break_off(self) -> None:
        for transport in list(self._open):
            transport.abort()  # type: ignore[attr-defined]
        self._open.clear()

    async def _listen(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, self.host, self.port, reuse_address=True, backlog=1024
        )

    async def _deaf(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _protocol(self) -> asyncio.BaseProtocol:
        match self.fault:
            case "reset" | "black_hole" | "garbage":
                return _Broken(self.fault, self._open)
        assert self._factory is not None
        return _Noted(self._factory(), self._open)


class _Noted(asyncio.Protocol):
    """The application's own protocol, its connection in the list of those that are open."""

    def __init__(self, inner: Any, open: set[asyncio.BaseTransport]) -> None:
        self._inner, self._open = inner, open
        self._transport: asyncio.BaseTransport | None = None
        self.data_received = inner.data_received
        self.eof_received = inner.eof_received
        self.pause_writing = inner.pause_writing
        self.resume_writing = inner.resume_writing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._open.add(transport)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._open.discard(self._transport)
        self._inner.connection_lost(error)


class _Broken(asyncio.Protocol):
    def __init__(self, fault: str, open: set[asyncio.BaseTransport]) -> None:
        self._fault, self._open = fault, open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)
        self._transport = transport
        if self._fault == "reset":
            plain = transport.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._fault == "garbage":
            self._transport.write(os.urandom(64) + b"\r\n\r\n")  # type: ignore[attr-defined]
            self._transport.close()
