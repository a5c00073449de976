"""The code to scan, as JSON, PNG, SVG or text. It is a secret: never stored, never logged."""

import asyncio
import io
from collections.abc import Callable, Mapping

import segno
from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import choose_form, json_answer
from agent.core.model import ConnectionStatus
from agent.errors import EngineError, NotYet, Refused, WaError

_BORDER = 2


def draw(text: str, form: str) -> bytes:
    try:
        code = segno.make(text, micro=False, error="l")
    except ValueError as error:
        raise EngineError("cannot draw the code: the engine's text does not fit") from error
    return _DRAW[form](code)


def _png(code: segno.QRCode) -> bytes:
    out = io.BytesIO()
    code.save(out, kind="png", scale=8, border=4)
    return out.getvalue()


def _svg(code: segno.QRCode) -> bytes:
    out = io.BytesIO()
    code.save(out, kind="svg", scale=8, border=4, light="#fff")
    return out.getvalue()


def _text(code: segno.QRCode) -> bytes:
    """Two rows in one line of half blocks; the light modules are drawn, as on a dark terminal."""
    rows = [[not dark for dark in row] for row in code.matrix_iter(border=_BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    blocks = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
    lines = (
        "".join(blocks[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
    return ("\n".join(lines) + "\n").encode()


_DRAW: Mapping[str, Callable[[segno.QRCode], bytes]] = {
    "image/png": _png,
    "image/svg+xml": _svg,
    "text/plain": _text,
}


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
    from agent.api.handlers.qr import draw

    return draw(text, form)
