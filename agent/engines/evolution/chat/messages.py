"""Sends, and what the answer tells of it. Only a sure failure is an error."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from agent.engines.evolution.answers import is_missing, refusal, refusal_words
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.chat.outgoing import ABOUT, key_of, request_of
from agent.engines.evolution.chat.stored import Stored
from agent.engines.evolution.chat.words import ACKS
from agent.engines.raw import inside, text
from agent.engines.remote.answers import Answer, ServerDown, segment
from agent.errors import EngineError, InvalidRequest

NOT_CONNECTED = ("Connection Closed", "Connection Terminated", "not connected")
_NOT_THERE = ("Message not found", "RemoteJid does not match", "Message not compatible")
_NO_FILE = "Owned media must be"
_FILE = 60.0
"""Seconds: the server loads a file to WhatsApp before it sends the message."""
_LOOK = 5.0
"""Seconds for a look into the server's store for the message that one is about."""


def outcome(answer: Answer) -> dict[str, Any]:
    """The caller's answer; EngineError where the message was surely not sent."""
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
    if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        raise EngineError(
            "cannot send the file: the server or a proxy before it takes none so large",
            code="file_too_large",
        )
    if _NO_FILE in words:
        raise InvalidRequest(
            "cannot send the file: the server takes neither this address nor this content",
            field="url",
        )
    if _unknown_number(answer.body):
        raise EngineError("cannot send: the number is not on WhatsApp", code="number_unknown")
    if any(sign in words for sign in NOT_CONNECTED):
        raise EngineError("cannot send: not connected", code="not_connected")
    if any(sign in words for sign in _NOT_THERE):
        raise EngineError(
            "cannot send: the server knows no such message of its own in that chat",
            code="message_not_found",
        )
    if answer.status >= 500:
        return {"id": "", "outcome": "unknown", "cause": f"the server answers {answer.status}"}
    raise refusal("send", answer, "not_sent")


def _unknown_number(body: Any) -> bool:
    raw = inside(body, "response", "message")
    while isinstance(raw, list) and raw:
        raw = raw[0]
    return inside(raw, "exists") is False


async def send(api: EvolutionApi, name: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    about = await _about(Stored(api, name), message)
    request = request_of(message, old=api.old, about=about)
    path = f"{request.path}/{segment(name)}"
    patience = _FILE if message.get("type") == "media" else None
    try:
        return outcome(
            await api.ask(request.method, path, request.body, alone=True, timeout=patience)
        )
    except ServerDown as down:
        if not down.reached or down.reason in ("refused_key", "licence_missing", "not_found"):
            raise
        # The server has the message; whether WhatsApp has it is not known.
        return {"id": "", "outcome": "unknown", "cause": down.cause}


async def _about(stored: Stored, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message that this one is about. Its server has the very key of it, where it has it: who
    is known there by WhatsApp's other name is known here by the phone's number."""
    if (names := ABOUT.get(str(message.get("type")))) is not None:
        key = key_of(message, *names)
        row = await _row(stored, key["id"])
        return {"key": inside(row, "key") or key}
    if "quote" not in message:
        return {}
    key = key_of(message, "quote", "quote_from")
    row = await _row(stored, key["id"])
    if row is not None and isinstance(inside(row, "message"), Mapping):
        return {"key": row["key"], "message": row["message"]}
    if words := message.get("quote_text"):
        return {"key": key, "message": {"conversation": words}}
    # The server would send it as no reply, and say nothing.
    raise EngineError(
        f"cannot send: neither the server nor this agent has the message {key['id']!r:.80}",
        code="message_not_found",
    )


async def _row(stored: Stored, id: str) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(_LOOK):
            return await stored.row(id)
    except (EngineError, TimeoutError):
        return None
