"""The file that a message brought, in pieces of which one is in memory. Its name and its type are
words of the contact: neither may choose a path, draw on a terminal or run as a page."""

import asyncio
import mimetypes
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import HEADERS
from agent.api.http.fields import INTEGER, STRING, Field
from agent.engines.phones import digits_of

OCTETS = "application/octet-stream"
SAFE = frozenset(
    {
        *("image/jpeg", "image/png", "image/gif", "image/webp"),
        *("audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr"),
        *("video/mp4", "video/3gpp", "video/webm"),
        "application/pdf",
    }
)
"""Types that no browser runs as a page; any other file is only octets."""
LONGEST_NAME = 150
"""Bytes, as file systems count."""
PIECE = 256 * 1024
PIECE_SECONDS = 60.0
"""In which a reader must take a piece."""
SLOWEST = 32 * 1024
"""Bytes a second that a reader must take of the whole."""
_WAIT = 30
_NO_NAME = re.compile(r"[^\w .,()\[\]+=@~#-]", re.ASCII)
MEDIA = (
    Field(
        "chat",
        STRING,
        "jid or number of the chat; then the message is named by WhatsApp's id (`message_id`), not"
        " by the id of its record",
        least=1,
        most=128,
    ),
    Field(
        "wait",
        INTEGER,
        f"seconds to wait until the file is loaded, default {_WAIT}; then 503 `media_loading`, and"
        " the load goes on",
        least=0,
        most=60,
    ),
)


def type_of(mimetype: object) -> str:
    """One of SAFE, else octets."""
    plain = mimetype.partition(";")[0].strip().lower() if isinstance(mimetype, str) else ""
    return plain if plain in SAFE else OCTETS


def file_name(filename: object, mimetype: object) -> str:
    """One part of a path without signs that control something; never empty, never hidden."""
    last = re.split(r"[/\\]", filename if isinstance(filename, str) else "")[-1]
    name = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*')
    stem, dot, ending = name.rpartition(".")
    tail = dot + ending if stem and len(ending) <= 10 else ""
    most = LONGEST_NAME - len(tail.encode("utf-8", "ignore"))
    cut = name.removesuffix(tail).encode("utf-8", "ignore")[:most].decode("utf-8", "ignore")
    return (cut + tail).strip(" .") or f"file{mimetypes.guess_extension(type_of(mimetype)) or ''}"


def disposition(name: str) -> str:
    """RFC 6266: for old readers in ASCII, for others as it is."""
    plain = _NO_NAME.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def media(call: Call) -> web.StreamResponse:
    call.supervisor.view(call.id)
    chat, wait = call.query.get("chat", ""), float(call.query.get("wait", _WAIT))
    if chat and "@" not in chat:
        chat = f"{digits_of(chat)}@s.whatsapp.net"
    message, loop = call.request.match_info["message"], asyncio.get_running_loop()
    async with call.parts.reader.media(call.id, message, chat, wait) as (about, file):
        answer = web.StreamResponse(headers=_headers(about))
        answer.content_length = size = about["size"]
        try:
            await answer.prepare(call.request)
            async with asyncio.timeout(PIECE_SECONDS + size / SLOWEST):
                while piece := await loop.run_in_executor(None, file.read, PIECE):
                    async with asyncio.timeout(PIECE_SECONDS):
                        await answer.write(piece)
                await answer.write_eof()
        except (OSError, TimeoutError) as error:
            # Half an answer is out: only the end of the connection tells the reader.
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("a file was not read to its end") from error
        return answer


def _headers(about: Mapping[str, Any]) -> dict[str, str]:
    mimetype = about.get("mimetype")
    return {
        **HEADERS,
        "Content-Type": type_of(mimetype),
        "Content-Disposition": disposition(file_name(about.get("filename"), mimetype)),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Media-SHA256": str(about["sha256"]),
    }
