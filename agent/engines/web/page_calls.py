"""Questions to the page: a new code, a pairing code, a logout, a picture, a message's file."""

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from agent.engines.web.browser.page import Page
from agent.engines.web.messages import (
    UPLOAD_LIMIT,
    Outgoing,
    chat_of,
    outcome,
    refusal,
)
from agent.errors import EngineError

# Give the page a message to send, and files in parts; say what became of them.


ANSWER = 8.0
FILE_ANSWER = 60.0
"""Seconds that WhatsApp may take to have a file."""


async def _done(page: Page, doing: str, what: str, *given: Any) -> Any:
    """The page's answer; EngineError when it did not do it."""
    raw = await page.ask(what, *given, ANSWER, within=ANSWER + 1)
    if not isinstance(raw, Mapping) or "ok" not in raw:
        raise refusal(doing, raw)
    return raw["ok"]


async def send(page: Page, asked: Outgoing) -> Mapping[str, Any]:
    id, options = asked.about, dict(asked.options)
    limit = FILE_ANSWER if asked.kind == "file" else ANSWER
    given: tuple[Any, ...] = ("send_message", asked.to, asked.kind, dict(asked.content), options)
    if not id:
        key = await _done(page, "send", "message_id", asked.to, asked.id)
        id, options["messageId"] = str(key["id"]), str(key["whole"])
        if key["ack"] is not None:
            # The page has it from an earlier try, and sends it by itself where it has to.
            given = ("message_ack", options["messageId"])
    try:
        raw = await page.ask(*given, limit, within=limit + 1)
    except EngineError as error:
        # The page has it; whether WhatsApp has it is unknown.
        return {"id": id, "outcome": "unknown", "cause": str(error)[:200]}
    return outcome(id, raw)


async def take_part(page: Page, part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The page holds it until the message that needs it comes, at most two minutes."""
    given = (part.get("upload"), part.get("index"), part.get("data"), UPLOAD_LIMIT)
    return {"size": await _done(page, "take a part of the file", "file_part", *given)}


PAIRING_CODE = 195.0
"""Seconds that a pairing code holds."""
PICTURE_LIMIT = 640 * 1024
"""Bytes of a picture that one message of the link surely holds; photos make a PNG longer."""

FILE_LOOK = 8.0
"""Seconds that one question waits for a file which the page loads."""
PIECE = 192 * 1024
"""Bytes of a file that the page hands over at once."""
_LOST = "media_unreachable"
_FILE_CODES = {
    "media_not_found": "media_gone",
    "msg_not_found": "media_gone",
    "message_not_contains_media": "no_media",
    "not_ready": _LOST,
    "file_lost": _LOST,
}
"""The bundle's codes, and those of media.js."""


async def log_out(page: Page) -> None:
    if await _done(page, "log out", "logout") is not True:
        raise refusal("log out", {})


async def refresh_code(page: Page) -> None:
    await _done(page, "get a new code", "refresh")


async def pairing_code(page: Page, digits: str) -> Mapping[str, Any]:
    code = await _done(page, "get a pairing code", "pairing_code", digits)
    return {"code": code, "expires_in": PAIRING_CODE}


async def picture(page: Page) -> Mapping[str, Any]:
    kind, content = "png", await page.picture("png")
    if len(content) > PICTURE_LIMIT:
        kind, content = "jpeg", await page.picture("jpeg")
    return {"type": f"image/{kind}", "content": base64.b64encode(content).decode()}


async def mark_read(page: Page, asked: Mapping[str, Any]) -> None:
    """WhatsApp Web knows no receipt for one message: all of the chat are marked."""
    await _done(page, "mark messages as read", "mark_read", chat_of(asked.get("chat")))


async def presence(page: Page, asked: Mapping[str, Any]) -> None:
    chat = chat_of(asked["chat"]) if asked.get("chat") else ""
    state, seconds = str(asked.get("state", "")), asked.get("seconds", 0)
    await _done(page, "show a presence", "presence", state, chat, seconds)


async def missing_parts(page: Page, limit: float) -> list[str]:
    """Parts of WhatsApp's page that it lacks."""
    raw = await page.ask("missing", within=limit)
    return [name for name in raw if isinstance(name, str)] if isinstance(raw, list) else []


async def load_media(page: Page, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """An empty piece says that the page is still loading."""
    begun = await _ask_for_file(page, "begin", str(record["_media"].get("key", "")))
    name, size = str(begun.get("name", "")), None
    try:
        while size is None:
            yield b""
            size = (await _ask_for_file(page, "wait", name, FILE_LOOK)).get("size")
        for offset in range(0, int(size), PIECE):
            data = (await _ask_for_file(page, "part", name, offset, PIECE)).get("data")
            if not isinstance(data, str) or not data:
                raise EngineError("cannot load the file: the page lost it", code=_LOST)
            yield base64.b64decode(data)
    finally:
        with suppress(EngineError):
            await page.ask("media.end", name, within=ANSWER)


async def _ask_for_file(page: Page, what: str, *given: Any) -> Mapping[str, Any]:
    try:
        raw = await page.ask(f"media.{what}", *given, within=FILE_LOOK + ANSWER)
    except EngineError as error:
        raise EngineError(f"cannot load the file: {error}", code="media_unreachable") from error
    if isinstance(raw, Mapping) and isinstance(ok := raw.get("ok"), Mapping):
        return ok
    refused = refusal("load the file", raw)
    raise EngineError(str(refused), code=_FILE_CODES.get(refused.code, refused.code))
