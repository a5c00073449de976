"""Messages: a request to send in the bundle's words, and the meaning of its answer."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.engines.files import sha256
from agent.engines.whatsapp import digits_of, is_phone, receiver_of
from agent.errors import EngineError, InvalidRequest

ACKS = ("clock", "server", "delivered", "read", "played", "peer")

_MESSAGE = re.compile(r"[0-9A-Za-z.-]{4,128}")
_REFUSALS = ("edit_message_error", "quoted_msg_can_not_reply")
"""The bundle's codes of what the page never does, however often it is asked."""


UPLOAD_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that comes in parts."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    to: str
    kind: str
    content: Mapping[str, Any] = field(repr=False)
    """As observer.js takes it."""
    options: Mapping[str, Any] = field(repr=False)
    id: str = ""
    """What WhatsApp is to call it: the same for each try of one message; "" = the page draws it."""

    @property
    def about(self) -> str:
        """The message that this one belongs to and that lends it its id; "": none."""
        return str(self.content["id"]) if self.kind in ("reaction", "delete") else ""


def read_message(message: Mapping[str, Any]) -> Outgoing:
    to, kind = chat_of(message.get("to")), message.get("type", "text")
    read = _READ.get(kind) if isinstance(kind, str) else None
    if read is None:
        kinds = ", ".join(_READ)
        raise InvalidRequest(
            f"cannot send {kind!r:.40}: the web engine sends {kinds}", field="type"
        )
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
    if not _MESSAGE.fullmatch(id):
        raise InvalidRequest(f"cannot send: {key} is no message's id", field=key)
    return id


def _writer(message: Mapping[str, Any], key: str) -> str:
    """A jid with the page's domain, "me", or "" where nobody knows."""
    return str(message.get(key, "")).replace("@s.whatsapp.net", "@c.us")


def _id_of(message: Mapping[str, Any]) -> str:
    """WhatsApp's id of the message with this key, in the form of the page's own ids."""
    key = message.get("key", "")
    if not isinstance(key, str) or len(key) > 1000:
        raise InvalidRequest("cannot send: key is no text of at most 1000 characters", field="key")
    return "3EB0" + sha256(key.encode("utf-8", "surrogatepass"))[:18].upper() if key else ""


def read_acks(raw: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The messages that the page says an acknowledgement came for, each with its word."""
    ack, ids = raw.get("ack"), raw.get("ids")
    if isinstance(ids, list):
        yield from ({"id": str(id)[:64], "ack": ack_word(ack)} for id in ids[:100])


_Read = tuple[str, dict[str, Any], dict[str, Any]]
"""The kind in observer.js's words, the content, more options."""


def _read_text(message: Mapping[str, Any]) -> _Read:
    return "text", {"text": _text(message, "text")}, {}


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
    content: dict[str, Any] = {
        "lat": _degrees(message, "latitude", 90),
        "lng": _degrees(message, "longitude", 180),
    }
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


def _read_edit(message: Mapping[str, Any]) -> _Read:
    return "edit", {"id": _about(message, "message_id"), "text": _text(message, "text")}, {}


def _read_delete(message: Mapping[str, Any]) -> _Read:
    by = _writer(message, "sender") or "me"
    return "delete", {"id": _about(message, "message_id"), "by": by}, {}


_READ: Mapping[str, Callable[[Mapping[str, Any]], _Read]] = {
    "text": _read_text,
    "media": _read_media,
    "location": _read_location,
    "contact": _read_contact,
    "reaction": _read_reaction,
    "edit": _read_edit,
    "delete": _read_delete,
}


def outcome(id: str, raw: Any) -> dict[str, Any]:
    """The answer for who asked; EngineError when WhatsApp Web surely did not send it."""
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
    """The bundle's own code where it has one."""
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
    """What the page answered instead of doing it."""
    if not isinstance(raw, Mapping):
        return EngineError(f"cannot {what}: the page is not ready", code="not_ready")
    return EngineError(f"cannot {what}: {_why(raw)}", code=_error_code(raw))


def _why(raw: Mapping[str, Any]) -> str:
    """In the page's words, but for those of JavaScript itself."""
    broke = raw.get("broke")
    if not isinstance(broke, list):
        return str(raw.get("message", "refused"))[:200]
    if lacks := ", ".join(name[:60] for name in broke if isinstance(name, str)):
        return f"WhatsApp's page lacks {lacks}, and wa-agent loads it again by itself"
    return "WhatsApp's page broke down at this request; loading it again may help"
