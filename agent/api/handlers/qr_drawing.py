"""Draws a code to scan as a picture or as text."""

import io
from collections.abc import Callable, Mapping

import segno

from agent.errors import EngineError

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
