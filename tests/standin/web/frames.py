"""WebSocket frames, as many kinds of them as a page's text messages need."""

import asyncio
import struct

_LIMIT = 8 * 1024 * 1024


async def receive_text(reader: asyncio.StreamReader) -> bytes | None:
    """One text message of the page; None when it closed."""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack(">H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await reader.readexactly(8))
        if size > _LIMIT:
            return None
        mask = await reader.readexactly(4)
        body = await reader.readexactly(size)
        if first & 15 == 8:
            return None
        if first & 15 == 1:
            return bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))


def send_text(writer: asyncio.StreamWriter, text: bytes) -> None:
    if writer.is_closing():
        return
    size = len(text)
    if size < 126:
        head = struct.pack(">BB", 0x81, size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x81, 126, size)
    else:
        head = struct.pack(">BBQ", 0x81, 127, size)
    writer.write(head + text)
