"""The file that a message brought, in pieces of which one is in memory. Its name and its type are
words of the contact: neither may choose a path, draw on a terminal or run as a page."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Route
from agent.api.http.envelope import HEADERS
from agent.api.http.fields import INTEGER, STRING, Field
from agent.core.model import ID_PATTERN
from agent.engines.phones import digits_of
from agent.wings.messages.part import MessagesPart

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
_NO_NAME = re.compile(r"[^\w .,()\[\]+=@~#-]", re.ASCII)
_ENDINGS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "audio/ogg": ".ogg",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "video/mp4": ".mp4",
    "application/pdf": ".pdf",
}
PIECE = 256 * 1024
PIECE_SECONDS = 60.0
"""In which a reader must take a piece."""
SLOWEST = 32 * 1024
"""Bytes a second that a reader must take of the whole."""
_WAIT = 30
QUERY = (
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
    text = filename if isinstance(filename, str) else ""
    last = re.split(r"[/\\]", text)[-1]
    printable = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*')
    # Bytes are what a file system counts.
    whole = printable.encode("utf-8", "ignore")
    if len(whole) > LONGEST_NAME:
        stem, dot, ending = printable.rpartition(".")
        tail = (dot + ending).encode() if stem and len(ending) <= 10 else b""
        cut = (stem if tail else printable).encode("utf-8", "ignore")[: LONGEST_NAME - len(tail)]
        whole = cut + tail
    name = whole.decode("utf-8", "ignore").strip(" .")
    return name or "file" + _ENDINGS.get(type_of(mimetype), "")


def disposition(name: str) -> str:
    """RFC 6266: for old readers in ASCII, for others as it is."""
    plain = _NO_NAME.sub("_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def media(call: Call) -> web.StreamResponse:
    call.supervisor.view(call.id)
    part, query = call.parts.wing(MessagesPart), call.query
    chat, loop = query.get("chat", ""), asyncio.get_running_loop()
    if chat and "@" not in chat:
        chat = f"{digits_of(chat)}@s.whatsapp.net"
    with part.reads_file(call.id):
        message, wait = call.request.match_info["message"], float(query.get("wait", _WAIT))
        about, file = await part.reader.media(call.id, message, chat, wait)
        try:
            answer = web.StreamResponse(headers=_headers(about))
            answer.content_length = size = about["size"]
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
        finally:
            file.close()
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


ROUTES = (
    Route(
        "GET",
        f"/api/instance/{{id:{ID_PATTERN}}}/messages/{{message:[^/]{{1,600}}}}/media",
        Right.OPERATE,
        media,
        "The file that a message brought, as an attachment; it is loaded from WhatsApp first where"
        " it is not kept yet",
        query=QUERY,
    ),
)
