"""A pairing code to type on the phone, and a picture of a browser's page."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.fields import STRING, Field
from agent.errors import EngineError, InvalidRequest, Refused
from agent.supervise.requests.calls import COMMAND_TIMEOUT

PAIRING_CODE = (
    Field(
        "phone",
        STRING,
        "the account's number, with country code",
        True,
        least=7,
        most=32,
        pattern=r"[^0-9]*(?:[0-9][^0-9]*){7,15}",
    ),
)
_FAILED = frozenset(
    {"engine", "timeout", "page_error", "page_incomplete", "not_ready", "backend_down"}
)
"""Failures of an engine; its other codes refuse the request in this state."""
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""A page full of photos is a JPEG: as PNG it would be too long for the worker's answer."""
_PAIRING_TIMEOUT = 45.0
"""A server may have to end one login and begin another before it has a code."""


async def pairing_code(call: Call) -> Json:
    body = await call.body()
    if not 7 <= sum(sign in "0123456789" for sign in body["phone"]) <= 15:
        raise InvalidRequest(
            "cannot use the field 'phone': it must be a number with 7 to 15 digits", field="phone"
        )
    answer = await _ask(call, "pairing_code", {"phone": body["phone"]}, _PAIRING_TIMEOUT)
    return {"code": answer.get("code"), "expires_in": answer.get("expires_in")}


async def screenshot(call: Call) -> web.Response:
    answer = await _ask(call, "screenshot", {"format": "png"}, COMMAND_TIMEOUT)
    try:
        content = base64.b64decode(str(answer.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return web.Response(body=content, content_type=kind)
    raise EngineError(f"cannot show the page of {call.id}: the worker sent no picture")


async def _ask(
    call: Call, name: str, arguments: Mapping[str, Any], timeout: float
) -> Mapping[str, Any]:
    engine = call.supervisor.view(call.id).instance.engine
    try:
        return await call.supervisor.asking.command(call.id, name, arguments, timeout=timeout)
    except EngineError as error:
        if error.code in _FAILED:
            raise
        if error.code == "invalid_request":
            shown = name.replace("_", " ")
            raise Refused(
                f"cannot make a {shown} of {call.id}: its engine {engine} offers none",
                code="not_supported",
            ) from error
        raise Refused(str(error), code=error.code) from error
