"""Texts to send, and what the answer tells of them. Only a sure failure is an error."""

import re
from collections.abc import Mapping
from typing import Any

from agent.engines.evolution.answers import failed, missing, refusal_words
from agent.engines.remote.http import Answer
from agent.errors import EngineError, InvalidRequest

ACKS = {
    "ERROR": "failed",
    "PENDING": "clock",
    "SERVER_ACK": "server",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "played",
}
_PHONE = re.compile(r"\+?[0-9][0-9 ().-]{5,24}")
_CHAT = re.compile(r"[0-9-]{5,40}@(s\.whatsapp\.net|g\.us|lid|newsletter)")
_NOT_CONNECTED = ("Connection Closed", "Connection Terminated", "not connected")
_LONGEST = 65_536


def read_text(message: Mapping[str, Any]) -> tuple[str, str]:
    """The number and the text."""
    kind = message.get("type", "text")
    if kind != "text":
        raise InvalidRequest(
            f"cannot send {kind!r:.40}: through an Evolution server only text is sent", field="type"
        )
    text = message.get("text")
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise InvalidRequest("cannot send: text is missing or too long", field="text")
    return _number(message.get("to")), text


def outcome(answer: Answer) -> dict[str, Any]:
    """The caller's answer; EngineError where the text was surely not sent."""
    words = refusal_words(answer.body)
    if answer.good:
        key = answer.body.get("key") if isinstance(answer.body, Mapping) else None
        id = key.get("id") if isinstance(key, Mapping) else None
        if not isinstance(id, str) or not id:
            return {"id": "", "outcome": "unknown", "cause": "an answer without the message's id"}
        return {
            "id": id[:120],
            "outcome": "sent",
            "ack": ACKS.get(str(answer.body.get("status")), "clock"),
        }
    if missing(answer):
        raise EngineError("cannot send: the session is not there", code="remote_missing")
    if _unknown_number(answer.body):
        raise EngineError("cannot send: the number has no WhatsApp", code="number_unknown")
    if any(each in words for each in _NOT_CONNECTED):
        raise EngineError("cannot send: not connected", code="not_connected")
    if answer.status >= 500:
        return {"id": "", "outcome": "unknown", "cause": f"the server answers {answer.status}"}
    raise failed("send", answer, "not_sent")


def _number(to: object) -> str:
    if isinstance(to, str):
        text = to.strip().replace("@c.us", "@s.whatsapp.net")
        if _CHAT.fullmatch(text):
            return text
        if _PHONE.fullmatch(text):
            return re.sub(r"[^0-9]", "", text)
    raise InvalidRequest("cannot send: `to` is neither a phone number nor a chat's id", field="to")


def _unknown_number(body: Any) -> bool:
    response = body.get("response") if isinstance(body, Mapping) else None
    told = response.get("message") if isinstance(response, Mapping) else None
    while isinstance(told, list) and told:
        told = told[0]
    return isinstance(told, Mapping) and told.get("exists") is False
