"""Linking a session: the code to scan, as JSON, PNG, SVG or text, or one for the phone; and a
picture of its page. A code is a secret: never stored, never logged."""

import asyncio
import base64
import binascii
import io
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.envelope import json_answer
from agent.api.http.fields import STRING, Field
from agent.core.model import ConnectionStatus
from agent.errors import EngineError, InvalidRequest, NotYet, Refused, TryLater, WaError
from agent.supervise.calls import COMMAND_TIMEOUT

PAIRING_CODE = (
    Field(
        "phone",
        STRING,
        "the account's number with country code, 7 to 15 digits",
        True,
        least=7,
        most=32,
        pattern=r"[^0-9]*(?:[0-9][^0-9]*){7,15}",
    ),
)
_FAILED = {
    *("engine", "timeout", "page_error", "page_incomplete", "not_ready", "backend_down"),
    *("internal", "redis", "files", "no_effect", "backup_failed", "list_failed", "log_source"),
    *("written_back", "server_reconnected", "still_connected"),
}
"""Failures of an engine; its other codes refuse the request in this state."""
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""A page full of photos is a JPEG: as PNG it would be too long for the worker's answer."""


JSON, PNG, SVG, TEXT = "application/json", "image/png", "image/svg+xml", "text/plain"
FORMS = (JSON, PNG, SVG, TEXT)


def draw(text: str, form: str) -> bytes:
    import segno  # its tables are half a MiB, which an agent with paired sessions never needs

    try:
        code = segno.make(text, micro=False, error="l")
    except ValueError as error:
        raise EngineError("cannot draw the code: the engine's text does not fit") from error
    if form == TEXT:
        code.terminal(drawing := io.StringIO(), border=2, compact=True)
        return drawing.getvalue().encode()
    out = io.BytesIO()
    light = {"light": "#fff"} if form == SVG else {}
    code.save(out, kind="svg" if form == SVG else "png", scale=8, border=4, **light)
    return out.getvalue()


class NotAcceptable(WaError):
    code = "not_acceptable"
    http = 406
    exit_status = 2


async def show_qr(call: Call) -> web.Response:
    """The code to scan; JSON, PNG, SVG or text by Accept."""
    view = call.supervisor.view(call.id)
    accept = (call.request.headers.get("Accept") or "*/*").lower().split(",")
    words = (part.partition(";")[0].strip() for part in accept)
    # The header's order counts, not its weights.
    form = next((form for word in words for form in FORMS if fnmatchcase(form, word)), None)
    if form is None:
        raise NotAcceptable(
            "cannot draw the code in the accepted types: accept " + ", ".join(FORMS), field="Accept"
        )
    if view.status is ConnectionStatus.CONNECTED:
        raise Refused(f"cannot show a code: {call.id} is connected", code="connected")
    if not view.desired.should_run:
        raise Refused(f"cannot show a code: {call.id} is disabled or stopped", code="not_running")
    qr = await call.supervisor.asking.qr(call.id)
    if qr is None:
        raise NotYet(
            f"cannot show a code: {call.id} has none at the moment ({view.verdict.sentence})",
            code="no_qr",
        )
    if form == JSON:
        return json_answer(
            {"qr": qr.text, "expires_in": round(qr.expires_in, 3), "number": qr.number}
        )
    # Drawing takes milliseconds of pure Python; other requests need not wait for it.
    drawn = await asyncio.to_thread(draw, qr.text, form)
    answer = web.Response(body=drawn, content_type=form)
    if form == TEXT:
        answer.charset = "utf-8"
    answer.headers["X-Qr-Number"] = str(qr.number)
    answer.headers["X-Qr-Expires-In"] = f"{max(qr.expires_in, 0):.3f}"
    return answer


async def pairing_code(call: Call) -> Json:
    """A code to type on the phone instead of a scan."""
    body = await call.body()
    # A server may have to end one login and begin another before it has a code.
    answer = await ask_engine(
        call,
        "pairing_code",
        {"phone": body["phone"]},
        lacking=f"cannot make a pairing code of {call.id}: its engine {call.engine} offers none",
        timeout=45.0,
    )
    return {"code": answer.get("code"), "expires_in": answer.get("expires_in")}


async def screenshot(call: Call) -> web.Response:
    """A picture of an instance's page: PNG, or JPEG if a PNG is too large."""
    answer = await ask_engine(
        call,
        "screenshot",
        {"format": "png"},
        lacking=f"cannot make a screenshot of {call.id}: its engine {call.engine} offers none",
        timeout=COMMAND_TIMEOUT,
    )
    try:
        content = base64.b64decode(str(answer.get("content", "")), validate=True)
    except binascii.Error:
        content = b""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return web.Response(body=content, content_type=kind)
    raise EngineError(f"cannot show the page of {call.id}: the worker sent no picture")


async def ask_engine(
    call: Call,
    name: str,
    arguments: Mapping[str, Any],
    *,
    lacking: str = "",
    timeout: float,
    alone: bool = False,
) -> Mapping[str, Any]:
    """The engine's refusal becomes an error of the request. `lacking`: the error if the engine has
    no such command; "" = it has it, so `invalid_request` is about the arguments."""
    try:
        return await call.supervisor.asking.command(
            call.id, name, arguments, timeout=timeout, alone=alone
        )
    except (EngineError, InvalidRequest) as error:
        if error.code == "busy":
            raise TryLater(str(error), code="busy") from error
        if error.code == "invalid_request":
            if lacking:
                raise Refused(lacking, code="not_supported") from error
            raise InvalidRequest(str(error), field="body") from error
        if error.code in _FAILED or isinstance(error, InvalidRequest):
            raise
        raise Refused(str(error), code=error.code) from error
