"""What only a session in a browser has: a code to type on the phone, a picture of its page."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.call import Call
from agent.api.envelope import json_answer
from agent.api.fields import STRING, Field
from agent.errors import EngineError, InvalidRequest, Refused

PAIRING_CODE = (
    Field("phone", STRING, "the account's number, with country code", True, least=7, most=32),
)
_OUR_FAULT = frozenset({"engine", "timeout", "page_error", "not_ready"})
"""All other words of an engine say that what was asked for does not fit its state."""


async def pairing_code(call: Call) -> web.Response:
    body = await call.body()
    if not 7 <= sum(sign in "0123456789" for sign in body["phone"]) <= 15:
        raise InvalidRequest(
            "cannot use the field 'phone': it must be a number with 7 to 15 digits", field="phone"
        )
    found = await _ask(call, "pairing_code", {"phone": body["phone"]})
    return json_answer({"code": found.get("code"), "expires_in": found.get("expires_in")})


async def screenshot(call: Call) -> web.Response:
    found = await _ask(call, "screenshot", {"format": "png"})
    try:
        content = base64.b64decode(str(found.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    if not content.startswith(b"\x89PNG"):
        raise EngineError(f"cannot show the page of {call.id}: the worker sent no picture")
    return web.Response(body=content, content_type="image/png")


async def _ask(call: Call, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    call.supervisor.view(call.id)
    try:
        return await call.supervisor.command(call.id, name, arguments)
    except EngineError as error:
        if error.code in _OUR_FAULT:
            raise
        raise Refused(str(error), code=error.code) from error
