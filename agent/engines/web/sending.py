"""Give the page a message to send, and files in parts; say what became of them."""

from collections.abc import Mapping
from typing import Any

from agent.engines.web.browser.page import Page
from agent.engines.web.messages import UPLOAD_LIMIT, FilePart, Outgoing, outcome, refusal
from agent.errors import EngineError

ANSWER = 8.0
FILE_ANSWER = 60.0
"""Seconds that WhatsApp may take to have a file."""


async def send(page: Page, asked: Outgoing) -> Mapping[str, Any]:
    id, options = asked.about, dict(asked.options)
    if not id:
        named = await page.ask("message_id", asked.to, ANSWER, asked.id, within=ANSWER + 1)
        if not isinstance(named, Mapping) or not isinstance(key := named.get("ok"), Mapping):
            raise refusal("send", named)
        id, options["messageId"] = str(key.get("id", "")), str(key.get("whole", ""))
        if key.get("ack") is not None:
            return await _sent_before(page, id, options["messageId"])
    limit = FILE_ANSWER if asked.kind == "file" else ANSWER
    given = (asked.to, asked.kind, dict(asked.content), options, limit)
    try:
        raw = await page.ask("send_message", *given, within=limit + 1)
    except EngineError as error:
        # The page has it; whether WhatsApp has it is unknown.
        return {"id": id, "outcome": "unknown", "cause": str(error)[:200]}
    return outcome(id, raw)


async def _sent_before(page: Page, id: str, whole: str) -> Mapping[str, Any]:
    """The page has this message from an earlier try, and sends it by itself where it has to."""
    try:
        raw = await page.ask("message_ack", whole, ANSWER, within=ANSWER + 1)
    except EngineError as error:
        return {"id": id, "outcome": "unknown", "cause": str(error)[:200]}
    return outcome(id, raw)


async def take_part(page: Page, part: FilePart) -> Mapping[str, Any]:
    """The page holds it until the message that needs it comes, at most two minutes."""
    given = (part.upload, part.index, part.data, UPLOAD_LIMIT, ANSWER)
    raw = await page.ask("file_part", *given, within=ANSWER + 1)
    if not isinstance(raw, Mapping) or "ok" not in raw:
        raise refusal("take a part of the file", raw)
    return {"size": raw["ok"]}
