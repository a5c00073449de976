"""Questions to the page: a message to send in the bundle's words and the meaning of its answer, a
new code, a pairing code, a logout, a picture, a message's file."""

import base64
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.engines.base import sha256
from agent.engines.web.browser.page import Page
from agent.engines.whatsapp import digits_of, is_phone, receiver_of
from agent.errors import EngineError, InvalidRequest

ACKS = ("clock", "server", "delivered", "read", "played", "peer")

_REFUSALS = ("edit_message_error", "quoted_msg_can_not_reply")
"""The bundle's codes of what the page never does, however often it is asked."""

UPLOAD_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that comes in parts."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    to: str
    kind: str
    content: Mapping[str, Any] = field(repr=False)
    """Content as observer.js takes it."""
    options: Mapping[str, Any] = field(repr=False)
    id: str = ""
    """WhatsApp's id of the message, the same for each try; "" = the page draws one."""

    @property
    def about(self) -> str:
        """The message that this one belongs to and that lends it its id; "": none."""
        return str(self.content["id"]) if self.kind in ("reaction", "delete") else ""


def read_message(message: Mapping[str, Any]) -> Outgoing:
    to, kind = chat_of(message.get("to")), message.get("type", "text")
    read = _READ.get(kind) if isinstance(kind, str) else None
    if read is None:
        why = f"cannot send {kind!r:.40}: the web engine sends {', '.join(_READ)}"
        raise InvalidRequest(why, field="type")
    name, content, more = read(message)
    if "quote" in message:
        more["quote"] = {"id": _about(message, "quote"), "by": _writer(message, "quote_from")}
    if mentions := message.get("mentions"):
        more["mentionedList"] = [str(each).replace("@s.whatsapp.net", "@c.us") for each in mentions]
    # The bundle's link previews come from servers of its authors.
    options = {"linkPreview": False, "markIsRead": False, "waitForAck": True, **more}
    return Outgoing(to, name, content, options, _id_of(message))


def chat_of(to: object) -> str:
    chat = receiver_of(to)
    return chat if "@" in chat else f"{chat}@c.us"


def ack_word(raw: Any) -> str:
    if not isinstance(raw, int) or raw >= len(ACKS):
        return "unknown"
    return ACKS[raw] if raw >= 0 else "failed"


def _about(message: Mapping[str, Any], key: str) -> str:
    id = _text(message, key)
    if not re.fullmatch(r"[0-9A-Za-z.-]{4,128}", id):
        raise InvalidRequest(f"cannot send: {key} is no message's id", field=key)
    return id


def _writer(message: Mapping[str, Any], key: str) -> str:
    """Return a jid with the page's domain, "me", or "" if the writer is not known."""
    return str(message.get(key, "")).replace("@s.whatsapp.net", "@c.us")


def _id_of(message: Mapping[str, Any]) -> str:
    """Return WhatsApp's id of the message with this key, in the form of the page's own ids."""
    key = message.get("key", "")
    if not isinstance(key, str) or len(key) > 1000:
        raise InvalidRequest("cannot send: key is no text of at most 1000 characters", field="key")
    return "3EB0" + sha256(key.encode("utf-8", "surrogatepass"))[:18].upper() if key else ""


_Read = tuple[str, dict[str, Any], dict[str, Any]]
"""The kind in observer.js's words, the content, more options."""


def _read_media(message: Mapping[str, Any]) -> _Read:
    mimetype = _text(message, "mimetype")
    options = {"type": "auto-detect", "mimetype": mimetype}
    options |= {name: _text(message, name) for name in ("filename", "caption") if message.get(name)}
    if "upload" in message:
        return "file", {"upload": message["upload"], "size": message.get("size")}, options
    if "url" in message:
        whole = _text(message, "url")
        if not whole.startswith("https://"):
            raise InvalidRequest("cannot send the file: its url is not https", field="url")
    else:
        whole = f"data:{mimetype};base64,{_text(message, 'content')}"
    return "file", {"whole": whole}, options


def _read_location(message: Mapping[str, Any]) -> _Read:
    lat, lng = _degrees(message, "latitude", 90), _degrees(message, "longitude", 180)
    content: dict[str, Any] = {"lat": lat, "lng": lng}
    content |= {name: _text(message, name) for name in ("name", "address") if message.get(name)}
    return "location", content, {}


def _read_contact(message: Mapping[str, Any]) -> _Read:
    phone = _text(message, "phone").strip()
    if not is_phone(phone):
        raise InvalidRequest("cannot send the contact: phone is no number", field="phone")
    return "contact", {"id": digits_of(phone) + "@c.us", "name": _text(message, "name")}, {}


def _read_reaction(message: Mapping[str, Any]) -> _Read:
    id, emoji = _about(message, "message_id"), message.get("emoji")
    if not isinstance(emoji, str) or len(emoji) > 32:
        raise InvalidRequest("cannot react: emoji is missing or too long", field="emoji")
    return "reaction", {"id": id, "emoji": emoji, "by": _writer(message, "sender")}, {}


def _read_delete(message: Mapping[str, Any]) -> _Read:
    by = _writer(message, "sender") or "me"
    return "delete", {"id": _about(message, "message_id"), "by": by}, {}


_READ: Mapping[str, Callable[[Mapping[str, Any]], _Read]] = {
    "text": lambda it: ("text", {"text": _text(it, "text")}, {}),
    "media": _read_media,
    "location": _read_location,
    "contact": _read_contact,
    "reaction": _read_reaction,
    "edit": lambda it: ("edit", {"id": _about(it, "message_id"), "text": _text(it, "text")}, {}),
    "delete": _read_delete,
}


def outcome(id: str, raw: Any) -> dict[str, Any]:
    """Return the answer; EngineError if WhatsApp Web surely did not send the message."""
    if not isinstance(raw, Mapping):
        return {"id": id, "outcome": "unknown"}
    if isinstance(sent := raw.get("ok"), Mapping):
        result = str(sent.get("result", ""))
        if result in ("OK", ""):
            return {"id": id, "outcome": "sent", "ack": ack_word(sent.get("ack"))}
        if result in ("ERROR_NETWORK", "ERROR_UNKNOWN"):
            return {"id": id, "outcome": "unknown", "cause": result.lower()}
        raise EngineError(f"cannot send {id}: {result.lower()}", code="not_sent")
    if raw.get("message") == "timeout":
        return {"id": id, "outcome": "unknown", "cause": "no answer in time"}
    raise refusal(f"send {id}", raw)


def _error_code(raw: Mapping[str, Any]) -> str:
    """Return the bundle's own code if there is one."""
    if raw.get("broke"):
        return "page_incomplete"
    code = str(raw.get("error", ""))
    if code in _REFUSALS:
        return "refused"
    return code if re.fullmatch(r"[a-z][a-z0-9_]{2,60}", code) else "page_error"


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"cannot send: {key} is missing", field=key)
    return value


def _degrees(message: Mapping[str, Any], key: str, most: float) -> float:
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise InvalidRequest(f"cannot send the location: {key} is no place on earth", field=key)
    return float(value)


def refusal(what: str, raw: Any) -> EngineError:
    """Return the error for an answer of the page that refuses the call."""
    if not isinstance(raw, Mapping):
        return EngineError(f"cannot {what}: the page is not ready", code="not_ready")
    return EngineError(f"cannot {what}: {_why(raw)}", code=_error_code(raw))


def _why(raw: Mapping[str, Any]) -> str:
    """Return the page's words, but for those of JavaScript itself."""
    broke = raw.get("broke")
    if not isinstance(broke, list):
        return str(raw.get("message", "refused"))[:200]
    if lacks := ", ".join(name[:60] for name in broke if isinstance(name, str)):
        return f"WhatsApp's page lacks {lacks}, and wa-agent loads it again by itself"
    return "WhatsApp's page broke down at this request; loading it again may help"


# Give the page a message to send, and files in parts; say what became of them.

ANSWER = 8.0
FILE_ANSWER = 60.0
"""Seconds that WhatsApp may take to have a file."""


async def _done(page: Page, doing: str, what: str, *given: Any) -> Any:
    """Return the page's answer; EngineError if the page did not do it."""
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
    """Give the page a part, which it holds until its message comes, at most two minutes."""
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
_FILE_CODES = {"media_not_found": "media_gone", "msg_not_found": "media_gone"}
_FILE_CODES |= {"message_not_contains_media": "no_media", "not_ready": _LOST, "file_lost": _LOST}
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
    """Mark a chat as read: WhatsApp Web knows no receipt for one message."""
    await _done(page, "mark messages as read", "mark_read", chat_of(asked.get("chat")))


async def presence(page: Page, asked: Mapping[str, Any]) -> None:
    chat = chat_of(asked["chat"]) if asked.get("chat") else ""
    state, seconds = str(asked.get("state", "")), asked.get("seconds", 0)
    await _done(page, "show a presence", "presence", state, chat, seconds)


async def load_media(page: Page, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a file; an empty one says that the page is still loading."""
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
        raise EngineError(f"cannot load the file: {error}", code=_LOST) from error
    if isinstance(raw, Mapping) and isinstance(ok := raw.get("ok"), Mapping):
        return ok
    refused = refusal("load the file", raw)
    raise EngineError(str(refused), code=_FILE_CODES.get(refused.code, refused.code))
