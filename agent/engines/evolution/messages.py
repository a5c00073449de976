"""Texts to send, and what the answer tells of them. Only a sure failure is an error."""

from collections.abc import Mapping
from typing import Any

from agent.engines.evolution.answers import is_missing, refusal, refusal_words
from agent.engines.evolution.api import EvolutionApi
from agent.engines.phones import receiver_of
from agent.engines.raw import inside, text
from agent.engines.remote.answers import Answer, ServerDown
from agent.errors import EngineError, InvalidRequest

ACKS = {
    "PENDING": "clock",
    "SERVER_ACK": "server",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "played",
}
_NOT_CONNECTED = ("Connection Closed", "Connection Terminated", "not connected")
_LONGEST = 65_536


def read_text(message: Mapping[str, Any]) -> tuple[str, str]:
    """The number and the text."""
    kind = message.get("type", "text")
    if kind != "text":
        raise InvalidRequest(
            f"cannot send {kind!r:.40}: through an Evolution server only text is sent", field="type"
        )
    body = message.get("text")
    if not isinstance(body, str) or not body.strip() or len(body) > _LONGEST:
        raise InvalidRequest("cannot send: text is missing or too long", field="text")
    return receiver_of(message.get("to")).replace("@c.us", "@s.whatsapp.net"), body


def outcome(answer: Answer) -> dict[str, Any]:
    """The caller's answer; EngineError where the text was surely not sent."""
    words = refusal_words(answer.body)
    if answer.good and inside(answer.body, "error") is True:
        raise refusal("send", answer, "not_sent")
    if answer.good and answer.body and inside(answer.body, "status") == "ERROR":
        raise EngineError("cannot send: WhatsApp refused the message", code="refused")
    if answer.good:
        id = text(inside(answer.body, "key", "id"), 120)
        if not id:
            return {"id": "", "outcome": "unknown", "cause": "the answer holds no message id"}
        ack = ACKS.get(str(answer.body.get("status")), "clock")
        return {"id": id, "outcome": "sent", "ack": ack}
    if is_missing(answer):
        raise EngineError("cannot send: the server has no such session", code="remote_missing")
    if _unknown_number(answer.body):
        raise EngineError("cannot send: the number is not on WhatsApp", code="number_unknown")
    if any(sign in words for sign in _NOT_CONNECTED):
        raise EngineError("cannot send: not connected", code="not_connected")
    if answer.status >= 500:
        return {"id": "", "outcome": "unknown", "cause": f"the server answers {answer.status}"}
    raise refusal("send", answer, "not_sent")


def _unknown_number(body: Any) -> bool:
    raw = inside(body, "response", "message")
    while isinstance(raw, list) and raw:
        raw = raw[0]
    return inside(raw, "exists") is False


async def send(api: EvolutionApi, name: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    number, text = read_text(message)
    try:
        return outcome(await api.send_text(name, number, text))
    except ServerDown as down:
        if not down.reached or down.reason in ("refused_key", "licence_missing", "not_found"):
            raise
        # The server has the text; whether WhatsApp has it is not known.
        return {"id": "", "outcome": "unknown", "cause": down.cause}
