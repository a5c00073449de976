"""Evolution's route of a message's file: in base64, in one answer, one part of it in memory."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.daemon.wing_parts import MessageSource
from agent.errors import EngineError, NotYet, Refused, TryLater
from agent.wings.compat.fields import check, key_in, text_of
from agent.wings.compat.part import CompatPart
from agent.wings.compat.raw_message import long_of

LOADED_WITHIN, LOOK = 60.0, 10.0
"""Seconds in which WhatsApp must give the file, and of one question for it."""
PART_SECONDS = 60.0
"""In which its worker must give a part, and the reader take it."""


async def give(call: Call) -> web.StreamResponse:
    body = await call.raw_body()
    check(body, {"message": "object"}, {})
    key, part = key_in(body["message"]), call.parts.wing(CompatPart)
    call.supervisor.view(call.id)
    if part.files.locked():
        raise TryLater("cannot read the file: too many are read already", code="busy")
    async with part.files:
        file = await _open(part.messages, call.id, key)
        head, tail = json.dumps(_shown(file, key), separators=(",", ":")).split('"\\u0000"')
        size = len(head) + len(tail) + -(-int(file["size"]) // 3) * 4 + 2
        answer = web.StreamResponse(status=201)
        answer.content_type, answer.content_length = "application/json", size
        await answer.prepare(call.request)
        try:
            await answer.write(f'{head}"'.encode())
            await _write(answer, part.messages, call.id, file)
            await answer.write(f'"{tail}'.encode())
        except (EngineError, Refused, TryLater, TimeoutError) as error:
            # Half an answer is out: only the end of the connection tells the reader.
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("a file was not read to its end") from error
        await answer.write_eof()
        return answer


async def _open(source: MessageSource, id: InstanceId, key: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the worker says of it, once it has it."""
    until = boot_now() + LOADED_WITHIN
    asked = {"id": key["id"], "chat": text_of(key, "remoteJid"), "wait": LOOK}
    while True:
        try:
            file = await source.call(id, "messages_media", asked, LOOK + PART_SECONDS)
        except EngineError as error:
            raise Refused(str(error), code=error.code) from error
        if file.get("state") == "ready":
            return file
        if boot_now() > until or source.ending:
            raise NotYet("cannot give this file yet: it is being loaded", code="media_loading")


async def _write(
    answer: web.StreamResponse, source: MessageSource, id: InstanceId, file: Mapping[str, Any]
) -> None:
    offset, rest, size = 0, b"", int(file["size"])
    while offset < size:
        asked = {"name": file["name"], "offset": offset}
        raw = await source.call(id, "messages_media_part", asked, PART_SECONDS)
        part = base64.b64decode(str(raw.get("data", "")))
        offset += len(part)
        if not part or offset > size:
            raise TryLater("cannot read the file: it changed", code="busy")
        encoded, rest = encode(rest + part, last=offset == size)
        async with asyncio.timeout(PART_SECONDS):
            await answer.write(encoded)


def encode(part: bytes, *, last: bool) -> tuple[bytes, bytes]:
    """In base64 as far as it goes without the next part, and the bytes that wait for that."""
    whole = len(part) if last else len(part) // 3 * 3
    return base64.b64encode(part[:whole]), part[whole:]


def _shown(file: Mapping[str, Any], key: Mapping[str, Any]) -> dict[str, Any]:
    """The NUL stands for the file."""
    mimetype = str(file.get("mimetype") or "application/octet-stream")
    kind = mimetype.partition("/")[0]
    kind = kind if kind in ("image", "video", "audio") else "document"
    return {
        "mediaType": f"{kind}Message",
        "fileName": str(file.get("filename") or key["id"]),
        "size": {"fileLength": long_of(int(file["size"]))},
        "mimetype": mimetype,
        "base64": "\0",
        "buffer": None,
    }
