"""The code to scan, as JSON, PNG, SVG or text. It is a secret: never stored, never logged."""

import asyncio
import io

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import choose_form, json_answer
from agent.core.model import ConnectionStatus
from agent.errors import EngineError, NotYet, Refused, WaError

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
