"""Questions to the page: a new code, a pairing code, a logout, a picture, a message's file, details
for people."""

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from agent.engines.receiver import receiver_of
from agent.engines.web.browser.page import Page
from agent.engines.web.messages import UPLOAD_LIMIT, FilePart, Outgoing, outcome, refusal
from agent.engines.web.states import PageFacts
from agent.errors import EngineError

# Give the page a message to send, and files in parts; say what became of them.


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


async def mark_read(page: Page, asked: Mapping[str, Any]) -> None:
    """WhatsApp Web knows no receipt for one message: all of the chat are marked."""
    await _tell(page, "mark messages as read", "mark_read", _chat(asked))


async def presence(page: Page, asked: Mapping[str, Any]) -> None:
    seconds = asked.get("seconds", 0)
    chat = _chat(asked) if asked.get("chat") else ""
    await _tell(page, "show a presence", "presence", str(asked.get("state", "")), chat, seconds)


async def _tell(page: Page, doing: str, what: str, *given: Any) -> None:
    answer = await page.ask(what, *given, ANSWER, within=ANSWER + 1)
    if not isinstance(answer, Mapping) or "ok" not in answer:
        raise refusal(doing, answer)


def _chat(asked: Mapping[str, Any]) -> str:
    chat = receiver_of(asked.get("chat"))
    return chat if "@" in chat else f"{chat}@c.us"


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
        }
    return detail


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
