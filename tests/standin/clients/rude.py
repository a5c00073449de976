"""Clients of the HTTP interface that are slow, unread, half-closed, broken or too many.

Each takes a `Door` and a step of a hostile case, and goes on until it is cancelled. What the agent
says to one that reads is noted in `Door.statuses`.
"""

import asyncio
import base64
import contextlib
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tests.standin.clients.odd_heads import odd_head

Step = dict[str, Any]
_STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.M)
HELD = 1 << 12
"""Bytes that the kernel holds for a client that does not read."""


@dataclass(slots=True)
class Door:
    """The agent's sockets, and how it answered."""

    port: int
    path: Path
    keys: dict[str, str]
    """Bearers by the word for them in a step."""
    statuses: set[bytes] = field(default_factory=set)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))
    """Held from a connection to its first head: of many without one the oldest is closed."""
    begun: int = 0
    """Connections that had their turn."""

    @contextlib.asynccontextmanager
    async def connected(self, source: str, *, held: int = 0) -> AsyncIterator["Line"]:
        """`source`: the client's address, or "unix"; `held`: see HELD. Ends with a reset."""
        await self.turns.acquire()
        unix = source == "unix"
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        sock.setblocking(False)
        line = Line(self, sock, self.turns)
        try:
            if held:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, held)
            if not unix:
                sock.bind((source, 0))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            address = str(self.path) if unix else ("127.0.0.1", self.port)
            await asyncio.get_running_loop().sock_connect(sock, address)
            yield line
        finally:
            line.end_turn()
            sock.close()


@dataclass(slots=True)
class Line:
    door: Door
    sock: socket.socket
    turns: asyncio.Semaphore | None

    async def send(self, raw: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self.turns is not None:
            head = min(raw.find(b"\r\n\r\n") + 4, HELD * 4)
            await loop.sock_sendall(self.sock, raw[:head])
            self.end_turn()
            raw = raw[head:]
        await loop.sock_sendall(self.sock, raw)

    def end_turn(self) -> None:
        if self.turns is not None:
            self.turns.release()
            self.turns = None
            self.door.begun += 1

    async def read(self, most: int = 1 << 16) -> bytes:
        raw = await asyncio.get_running_loop().sock_recv(self.sock, most)
        self.door.statuses.update(_STATUS.findall(raw))
        return raw

    async def read_all(self) -> bytes:
        """Until the agent closes."""
        whole = b""
        while raw := await self.read():
            whole += raw
        return whole

    async def read_head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and (raw := await self.read()):
            head += raw
        return head

    def end_side(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


def bearers(token: str) -> dict[str, str]:
    """Right and wrong ones by their words in a step."""
    right = f"Bearer {token}"
    return {
        **{"none": "", "read": right, "forged": right[:20] + "x" * 43, "basic": f"Basic {token}"},
        **{"unknown": f"Bearer wak_aaaaaaaa_{'a' * 43}", "long": "Bearer " + "a" * 7000},
    }


def ask(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def authorized(door: Door, step: Step) -> list[str]:
    key = door.keys[step["key"]]
    return [f"Authorization: {key}"] if key else []


def _asked(door: Door, step: Step) -> bytes:
    return ask(step["target"], *authorized(door, step), method=step.get("method", "GET"))


async def slow_head(door: Door, step: Step) -> None:
    async with door.connected(step["from"]) as line:
        for byte in _asked(door, step)[:-1]:
            await line.send(bytes([byte]))
            await asyncio.sleep(step["every"])


async def slow_body(door: Door, step: Step) -> None:
    headers = [*authorized(door, step), "Content-Type: application/json", "Content-Length: 9999999"]
    async with door.connected(step["from"]) as line:
        await line.send(ask(step["target"], *headers, method="POST"))
        while True:
            await line.send(b" ")
            await asyncio.sleep(step["every"])


async def unread(door: Door, step: Step) -> None:
    async with door.connected(step["from"], held=HELD) as line:
        await line.send(_asked(door, step) * step["times"])
        await asyncio.sleep(3600)


async def pipelined(door: Door, step: Step) -> None:
    """All of it in one piece; each is answered, or the first refusal is the last answer."""
    async with door.connected(step["from"]) as line:
        await line.send(_asked(door, step) * step["times"])
        if step["ends"]:
            line.end_side()
        await line.read_all()


async def half_closed(door: Door, step: Step) -> None:
    """A client that ends its side after a whole request gets its answer."""
    raw = _asked(door, step)
    part = raw[: int(len(raw) * step["at"])]
    while True:  # one of many that has not begun may be closed without a word
        async with door.connected(step["from"]) as line:
            await line.send(part)
            line.end_side()
            if await line.read_all() or len(part) < len(raw):
                return
        await asyncio.sleep(0.1)


async def flood(door: Door, step: Step) -> None:
    """Opens the next connection as soon as one is closed, and says that it is a proxy's."""
    for number in count():
        named = [f"X-Forwarded-For: 10.{step['number']}.0.{number}"] if step["forwarded"] else []
        raw = ask(step["target"], *authorized(door, step), *named)
        with contextlib.suppress(OSError):
            async with door.connected(step["from"]) as line:
                if step["reads"]:
                    await line.send(raw)
                    await line.read()
                elif step["times"] > 1:
                    await line.send(raw)
        await asyncio.sleep(0)


async def idle(door: Door, step: Step) -> None:
    """Kept open after an answer."""
    async with door.connected(step["from"]) as line:
        await line.send(_asked(door, step))
        await line.read_all()


async def heads(door: Door, step: Step) -> None:
    """Heads that are too long, too many, odd or contradict each other."""
    chance = Random(step["seed"])
    async with door.connected(step["from"]) as line:
        await line.send(odd_head(chance, step["target"]))
        await line.read_all()


async def chunks(door: Door, step: Step) -> None:
    """A chunked body without an end, or with sizes that are none."""
    chance = Random(step["seed"])
    kind = chance.choice(["endless", "endless", "slow", "tiny", "size", "extension", "trailer"])
    type = chance.choice(["application/json", "application/gzip", "text/plain"])
    headers = [*authorized(door, step), f"Content-Type: {type}", "Transfer-Encoding: chunked"]
    async with door.connected(step["from"]) as line:
        await line.send(ask(step["target"], *headers, method="POST"))
        if kind in ("size", "extension", "trailer"):
            await line.send(
                {
                    "size": b"zz\r\n" + b"a" * 100,
                    "extension": b"5;" + b"a" * 200_000,
                    "trailer": b"0\r\n" + b"X-T: a\r\n" * 5000,
                }[kind]
            )
            await line.read_all()
        piece = {"endless": b"10000\r\n" + b"a" * 65536 + b"\r\n", "tiny": b"1\r\na\r\n" * 1000}
        while True:
            await line.send(piece.get(kind, b"1\r\na\r\n"))
            await asyncio.sleep(step["every"] if kind == "slow" else 0.01)


async def lying(door: Door, step: Step) -> None:
    """A Content-Length that is too short or too long, with what follows it."""
    chance = Random(step["seed"])
    said, sent = chance.choice([(0, 50), (5, 5000), (50, 5), (10**12, 100), (100, 0)])
    headers = [*authorized(door, step), "Content-Type: application/json", f"Content-Length: {said}"]
    async with door.connected(step["from"]) as line:
        await line.send(ask(step["target"], *headers, method="POST", body=b"{" * sent))
        await line.read_all()


async def expecting(door: Door, step: Step) -> None:
    chance = Random(step["seed"])
    said = chance.choice(["100-continue", "100-continue", "100-CONTINUE, x", "cake", ""])
    headers = [*authorized(door, step), f"Expect: {said}", "Content-Type: application/json"]
    length = chance.choice(["Content-Length: 100000", "Transfer-Encoding: chunked"])
    async with door.connected(step["from"]) as line:
        await line.send(ask(step["target"], *headers, length, method="POST"))
        await line.read()
        if chance.random() < 0.5:
            await line.send(b"a" * 200_000)
        await line.read_all()


def upgrade(*headers: str, query: str = "") -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    more = (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers)
    return ask(f"/api/events{query}", "Upgrade: websocket", "Connection: Upgrade", *more)


LISTENERS = ("noise", "fragments", "pings", "long", "unread", "quiet", "close")


async def listener(door: Door, step: Step) -> None:
    """A WebSocket that sends garbage, fragments, too much or nothing, or does not read."""
    chance, kind = Random(step["seed"]), step["kind"]
    query = chance.choice(["", "?kind=status", "?after=0", "?kind=status&after=0"])
    async with door.connected(step["from"], held=HELD if kind == "unread" else 0) as line:
        await line.send(upgrade(*authorized(door, step), query=query))
        if kind == "unread":
            await asyncio.sleep(3600)
        await line.read_head()
        frames = {
            "noise": chance.randbytes(chance.randint(1, 3000)),
            "fragments": b"\x01\x81abcdx" + b"\x00\x81abcdx" * 5000,
            "pings": b"\x89\x84abcdefgh" * 5000,
            "long": b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"abcd" + b"x" * 100_000,
            "close": b"\x88\x82abcd",
        }
        await line.send(frames.get(kind, b""))
        await line.read_all()


CLIENTS: dict[str, Callable[[Door, Step], Awaitable[None]]] = {
    "slow_head": slow_head,
    "slow_body": slow_body,
    "unread": unread,
    "pipelined": pipelined,
    "half_closed": half_closed,
    "flood": flood,
    "idle": idle,
    "heads": heads,
    "chunks": chunks,
    "lying": lying,
    "expecting": expecting,
    "listener": listener,
}
