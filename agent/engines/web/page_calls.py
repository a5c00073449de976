"""Questions to the page: a new code, a pairing code, a logout, a picture, details for people."""

import base64
from collections.abc import Mapping
from typing import Any

from agent.engines.web.browser.page import Page
from agent.engines.web.messages import refusal
from agent.engines.web.sending import ANSWER
from agent.engines.web.states import PageFacts

PAIRING_CODE = 195.0
"""Seconds that a pairing code holds."""
PICTURE_LIMIT = 640 * 1024
"""Bytes of a picture that one message of the link surely holds; photos make a PNG longer."""


async def log_out(page: Page) -> None:
    answer = await page.ask("logout", ANSWER, within=ANSWER + 1)
    if not isinstance(answer, Mapping) or answer.get("ok") is not True:
        raise refusal("log out", answer)


async def refresh_code(page: Page) -> None:
    answer = await page.ask("refresh", ANSWER, within=ANSWER + 1)
    if not isinstance(answer, Mapping) or "ok" not in answer:
        raise refusal("get a new code", answer)


async def pairing_code(page: Page, digits: str, *, notify: bool) -> Mapping[str, Any]:
    answer = await page.ask("pairing_code", digits, notify, ANSWER, within=ANSWER + 1)
    if not isinstance(answer, Mapping) or not isinstance(answer.get("ok"), str):
        raise refusal("get a pairing code", answer)
    return {"code": answer["ok"], "expires_in": PAIRING_CODE}


async def picture(page: Page, kind: str) -> Mapping[str, Any]:
    """A PNG that is too large for the link becomes a JPEG."""
    content = await page.picture(kind=kind)
    if kind == "png" and len(content) > PICTURE_LIMIT:
        return await picture(page, "jpeg")
    return {"type": f"image/{kind}", "content": base64.b64encode(content).decode()}


def missing_in(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """Parts that the page lacks, by a deep look at it."""
    raw = detail.get("missing")
    return tuple(name for name in raw if isinstance(name, str)) if isinstance(raw, list) else ()


async def deep_detail(page: Page, facts: PageFacts | None, limit: float) -> dict[str, Any]:
    answer = await page.ask("deep", within=limit)
    detail = dict(answer) if isinstance(answer, Mapping) else {}
    detail |= await page.heap(within=limit)
    if facts is not None:
        detail |= {
            "mode": facts.mode,
            "info": facts.info,
            "socket": facts.socket,
            "frame_age": facts.frame_age,
            "code_shown": facts.qr is not None,
            "update_offered": facts.update,
        }
    return detail
