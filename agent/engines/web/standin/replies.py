"""HTTP answers of the stand-in: whole, slow, or something else in place of the page."""

import asyncio
from collections.abc import Mapping

from agent.engines.web.standin.fronts import Front

_POLICY = "script-src 'nonce-standin' 'self'; object-src 'none'"
"""As strict as the real site's: a script put into the page by other means does not run."""


async def send_front(writer: asyncio.StreamWriter, front: Front) -> None:
    """An answer in place of the page; a silent or stalling one never ends."""
    if not front.silent:
        longer = 100_000 if front.stalls else 0
        _head(writer, front.status, "text/html", len(front.body) + longer, front.headers)
        writer.write(front.body)
        await writer.drain()
    if front.silent or front.stalls:
        await asyncio.Event().wait()


async def send_reply(
    writer: asyncio.StreamWriter, status: str, kind: str, body: bytes, *, pace: float = 0.0
) -> None:
    """`pace`: bytes a second, as over a bad line; 0 = at once."""
    _head(writer, status, kind, len(body))
    step = max(1, int(pace / 4)) if pace else max(1, len(body))
    for start in range(0, len(body), step):
        writer.write(body[start : start + step])
        await writer.drain()
        if pace:
            await asyncio.sleep(0.25)
    await writer.drain()


def is_for_us(fields: Mapping[str, str]) -> bool:
    """Whether no other site's page in the same browser asks."""
    host = fields.get("host", "").rpartition(":")[0]
    origin = fields.get("origin", "")
    return host in ("127.0.0.1", "localhost") and origin in ("", f"http://{fields['host']}")


def _head(
    writer: asyncio.StreamWriter, status: str, kind: str, length: int, headers: str = ""
) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n{headers}"
        f"Content-Length: {length}\r\nContent-Security-Policy: {_POLICY}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
