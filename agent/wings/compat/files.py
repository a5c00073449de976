"""Evolution's route of a message's file: in base64, in one answer, one part of it in memory."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.deliver.media import MediaFile, MediaReaders
from agent.errors import WaError
from agent.wings.compat.fields import check, key_in, text_of
from agent.wings.compat.part import CompatPart
from agent.wings.compat.raw_message import long_of

LOADED_WITHIN = 60.0
"""Seconds in which WhatsApp must give the file."""
PART_SECONDS = 60.0
"""In which the reader must take a part."""


async def give(call: Call) -> web.StreamResponse:
    body = await call.raw_body()
    check(body, {"message": "object"}, {})
    key, part = key_in(body["message"]), call.parts.wing(CompatPart)
    call.supervisor.view(call.id)
    async with part.files.turn(call.id):
        chat = text_of(key, "remoteJid")
        file = await part.files.open(call.id, key["id"], chat, LOADED_WITHIN)
        head, tail = json.dumps(_shown(file, key), separators=(",", ":")).split('"\\u0000"')
        size = len(head) + len(tail) + -(-file.size // 3) * 4 + 2
        answer = web.StreamResponse(status=201)
        answer.content_type, answer.content_length = "application/json", size
        await answer.prepare(call.request)
        try:
            await answer.write(f'{head}"'.encode())
            await _write(answer, part.files, file)
            await answer.write(f'"{tail}'.encode())
        except (WaError, TimeoutError) as error:
            # Half an answer is out: only the end of the connection tells the reader.
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("a file was not read to its end") from error
        await answer.write_eof()
        return answer


async def _write(answer: web.StreamResponse, files: MediaReaders, file: MediaFile) -> None:
    rest, left = b"", file.size
    async for part in files.parts(file):
        left -= len(part)
        encoded, rest = encode(rest + part, last=not left)
        async with asyncio.timeout(PART_SECONDS):
            await answer.write(encoded)


def encode(part: bytes, *, last: bool) -> tuple[bytes, bytes]:
    """In base64 as far as it goes without the next part, and the bytes that wait for that."""
    whole = len(part) if last else len(part) // 3 * 3
    return base64.b64encode(part[:whole]), part[whole:]


def _shown(file: MediaFile, key: Mapping[str, Any]) -> dict[str, Any]:
    """The NUL stands for the file."""
    mimetype = str(file.mimetype or "application/octet-stream")
    kind = mimetype.partition("/")[0]
    kind = kind if kind in ("image", "video", "audio") else "document"
    return {
        "mediaType": f"{kind}Message",
        "fileName": str(file.filename or key["id"]),
        "size": {"fileLength": long_of(file.size)},
        "mimetype": mimetype,
        "base64": "\0",
        "buffer": None,
    }
