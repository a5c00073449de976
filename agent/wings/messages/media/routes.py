"""The file that a message brought, as it is on its way: one part of it in memory."""

import asyncio

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Route
from agent.api.http.envelope import HEADERS
from agent.api.http.fields import INTEGER, STRING, Field
from agent.core.model import ID_PATTERN
from agent.errors import WaError
from agent.wings.messages.media.file_head import disposition, file_name, type_of
from agent.wings.messages.media.source import MediaFile
from agent.wings.messages.part import MessagesPart

PART_SECONDS = 60.0
"""In which a reader must take a part."""
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


async def media(call: Call) -> web.StreamResponse:
    call.supervisor.view(call.id)
    readers = call.parts.wing(MessagesPart).media
    message, query = call.request.match_info["message"], call.query
    async with readers.turn(call.id):
        wait = float(query.get("wait", _WAIT))
        file = await readers.open(call.id, message, query.get("chat", ""), wait)
        parts = readers.parts(file)
        first = await anext(parts, b"")  # while an error can still be answered
        answer = web.StreamResponse(headers=_headers(file))
        answer.content_length = file.size
        await answer.prepare(call.request)
        try:
            async with asyncio.timeout(PART_SECONDS + file.size / SLOWEST):
                await _write(answer, first)
                async for part in parts:
                    await _write(answer, part)
                await answer.write_eof()
        except (WaError, TimeoutError) as error:
            # Half an answer is out: only the end of the connection tells the reader.
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("a file was not read to its end") from error
        finally:
            await parts.aclose()
        return answer


async def _write(answer: web.StreamResponse, part: bytes) -> None:
    async with asyncio.timeout(PART_SECONDS):
        await answer.write(part)


def _headers(file: MediaFile) -> dict[str, str]:
    return {
        **HEADERS,
        "Content-Type": type_of(file.mimetype),
        "Content-Disposition": disposition(file_name(file.filename, file.mimetype)),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Media-SHA256": file.sha256,
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
