"""A server that answers whatever a test wants, byte by byte."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.listener import listening

Misbehaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile(behave: Misbehaviour) -> AsyncIterator[str]:
    """Yield the address of a server that gives each connection one answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await behave(writer)
        writer.close()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}"


def answer(
    body: bytes, status: str = "200 OK", *headers: str, length: int | None = None
) -> Misbehaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length or len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return behave


def stream(piece: bytes, pause: float = 0.0) -> Misbehaviour:
    """An answer in pieces that has no end."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def reset(writer: asyncio.StreamWriter) -> None:
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def not_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n\r\n")
    await writer.drain()
