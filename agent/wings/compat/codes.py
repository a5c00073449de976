"""A code to scan, as Evolution shows one."""

import base64

from agent.errors import EngineError

CODE_KIND = "qr_code"
"""In the `kinds` of a webhook."""


def show_code(text: str) -> dict[str, str]:
    # Imported here: its tables are half a MiB, which an agent with paired sessions never needs.
    from agent.api.handlers.qr_drawing import draw

    try:
        picture = base64.b64encode(draw(text, "image/png")).decode()
    except EngineError:
        return {"code": text, "base64": ""}
    return {"code": text, "base64": f"data:image/png;base64,{picture}"}
