"""Messages: what somebody asks to send, in the bundle's words, and what its answer means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import EngineError, InvalidRequest

ACKS = {
    -7: "md_downgrade",
    -6: "inactive",
    -5: "content_unuploadable",
    -4: "content_too_big",
    -3: "content_gone",
    -2: "expired",
    -1: "failed",
    0: "clock",
    1: "server",
    2: "delivered",
    3: "read",
    4: "played",
    5: "peer",
}

_PHONE = re.compile(r"\+?[0-9][0-9 ().-]{5,24}")
_CHAT = re.compile(r"[0-9-]{5,40}@(c\.us|g\.us|lid|newsletter)")


@dataclass(frozen=True, slots=True)
class Outgoing:
    to: str
    kind: str
    content: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)


def chat_id(to: object) -> str:
    """WhatsApp Web's name of a chat, from a phone number or any engine's chat id."""
    if isinstance(to, str):
        text = to.strip().replace("@s.whatsapp.net", "@c.us")
        if _CHAT.fullmatch(text):
            return text
        if _PHONE.fullmatch(text):
            return re.sub(r"[^0-9]", "", text) + "@c.us"
    raise InvalidRequest("cannot send: `to` is neither a phone number nor a chat's id", field="to")


def read_message(message: Mapping[str, Any]) -> Outgoing:
    to = chat_id(message.get("to"))
    kind = message.get("type", "text")
    # The bundle's link previews come from servers of its authors.
    options: dict[str, Any] = {"linkPreview": False, "markIsRead": False, "waitForAck": True}
    if kind == "text":
        return Outgoing(to, "text", _text(message, "text"), options)
    if kind != "media":
        raise InvalidRequest(
            f"cannot send {kind!r:.40}: the web engine sends text and media", field="type"
        )
    mimetype = _text(message, "mimetype")
    if "url" in message:
        content = _text(message, "url")
        if not content.startswith("https://"):
            raise InvalidRequest("cannot send the file: its url is not https", field="url")
    else:
        content = f"data:{mimetype};base64,{_text(message, 'content')}"
    for ours, theirs in (("filename", "filename"), ("caption", "caption")):
        if message.get(ours):
            options[theirs] = _text(message, ours)
    return Outgoing(to, "file", content, {**options, "type": "auto-detect", "mimetype": mimetype})


def outcome(id: str, told: Any) -> dict[str, Any]:
    """The answer for who asked; EngineError when WhatsApp Web surely did not send it."""
    if not isinstance(told, Mapping):
        return {"id": id, "outcome": "unknown"}
    if isinstance(sent := told.get("ok"), Mapping):
        result = str(sent.get("result", ""))
        if result in ("OK", ""):
            return {"id": id, "outcome": "sent", "ack": ACKS.get(_whole(sent.get("ack")), "clock")}
        if result in ("ERROR_NETWORK", "ERROR_UNKNOWN"):
            return {"id": id, "outcome": "unknown", "cause": result.lower()}
        raise EngineError(f"cannot send {id}: {result.lower()}", code="not_sent")
    if told.get("message") == "timeout":
        return {"id": id, "outcome": "unknown", "cause": "no answer in time"}
    raise EngineError(
        f"cannot send {id}: {str(told.get('message', 'refused'))[:200]}", code=error_code(told)
    )


def error_code(told: Mapping[str, Any]) -> str:
    """The bundle's own code where it has one."""
    code = str(told.get("error", ""))
    return code if re.fullmatch(r"[a-z][a-z0-9_]{2,60}", code) else "page_error"


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"cannot send: {key} is missing", field=key)
    return value


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0


def refusal(what: str, told: Any) -> EngineError:
    """What the page answered instead of doing it."""
    if not isinstance(told, Mapping):
        return EngineError(f"cannot {what}: the page is not ready", code="not_ready")
    why = str(told.get("message", "refused"))[:200]
    return EngineError(f"cannot {what}: {why}", code=error_code(told))
