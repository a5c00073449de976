"""A body as JSON, or as a form with a file (multipart/form-data): Evolution's clients send both."""

import asyncio
from collections.abc import Iterator
from email.message import Message
from typing import Any

from aiohttp import web

from agent.api.http.body import read_bytes, read_json
from agent.errors import InvalidRequest

FILE = "file"
"""The field that holds the bytes of a file."""
_MULTIPART = "multipart/form-data"
_MOST_PARTS = 32
_LONGEST_HEAD = 4096


async def read_either(request: web.Request, *, limit: int, seconds: float) -> dict[str, Any]:
    if request.content_type != _MULTIPART:
        return await read_json(request, limit=limit, seconds=seconds)
    head = Message()
    head["Content-Type"] = request.headers.get("Content-Type", "")
    boundary = head.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise _bad("its Content-Type names no boundary")
    raw = await read_bytes(request, limit=limit, seconds=seconds)
    return await asyncio.to_thread(parse_form, raw, boundary.encode())


def parse_form(raw: bytes, boundary: bytes) -> dict[str, Any]:
    """Each field's text, and the bytes of the file."""
    found: dict[str, Any] = {}
    for name, content in _parts(raw, boundary):
        if name == FILE:
            found[name] = content
            continue
        try:
            found[name] = content.decode()
        except UnicodeDecodeError:
            raise _bad(f"its field {name!r:.40} is no text") from None
        if "\0" in found[name]:
            raise _bad(f"its field {name!r:.40} holds a NUL")
    return found


def _parts(raw: bytes, boundary: bytes) -> Iterator[tuple[str, bytes]]:
    mark = b"--" + boundary
    at = raw.find(mark)
    for _ in range(_MOST_PARTS + 1):
        if at < 0:
            raise _bad("it ends within a part")
        at += len(mark)
        if raw.startswith(b"--", at):
            return
        end_of_head = raw.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
        end = raw.find(b"\r\n" + mark, at)
        if end_of_head < 0 or end < end_of_head:
            raise _bad("a part has no head or no end")
        yield _name_of(raw[at:end_of_head]), raw[end_of_head + 4 : end]
        at = end + 2
    raise _bad(f"it has more than {_MOST_PARTS} parts")


def _name_of(head: bytes) -> str:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        word, _, rest = line.partition(":")
        if word.strip().lower() == "content-disposition":
            disposition = Message()
            disposition["Content-Disposition"] = rest.strip()
            name = disposition.get_param("name", header="content-disposition")
            if isinstance(name, str):
                return name[:64]
    raise _bad("a part has no name")


def _bad(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot read the form: {cause}", field="body", code="invalid_form")
