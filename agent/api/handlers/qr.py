"""The code to scan, as JSON, PNG, SVG or text. It is a secret: never stored, never logged."""

import asyncio

from aiohttp import web

from agent.api.handlers.accept import choose_form
from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.core.model import ConnectionStatus
from agent.errors import NotYet, Refused, WaError

JSON, PNG, SVG, TEXT = "application/json", "image/png", "image/svg+xml", "text/plain"
FORMS = (JSON, PNG, SVG, TEXT)


class NotAcceptable(WaError):
    code = "not_acceptable"
    http = 406
    exit_status = 2


async def show_qr(call: Call) -> web.Response:
    view = call.supervisor.view(call.id)
    form = choose_form(call.request.headers.get("Accept", ""), FORMS)
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
            f"cannot show a code: {call.id} has none at the moment ({view.sentence})",
            code="no_qr",
        )
    if form == JSON:
        return json_answer(
            {"qr": qr.text, "expires_in": round(qr.expires_in, 3), "number": qr.number}
        )
    # Drawing takes milliseconds of pure Python; other requests need not wait for it.
    drawn = await asyncio.to_thread(_draw, qr.text, form)
    answer = web.Response(body=drawn, content_type=form)
    if form == TEXT:
        answer.charset = "utf-8"
    answer.headers["X-Qr-Number"] = str(qr.number)
    answer.headers["X-Qr-Expires-In"] = f"{max(qr.expires_in, 0):.3f}"
    return answer


def _draw(text: str, form: str) -> bytes:
    # Imported here: its tables are half a MiB, which an agent with paired sessions never needs.
    from agent.api.handlers.qr_drawing import draw

    return draw(text, form)
