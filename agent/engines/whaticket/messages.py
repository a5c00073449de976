"""A text that a session on the server sends: what is asked, and what became of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket.rows import Row
from agent.engines.whaticket.server import WhaticketServer
from agent.errors import EngineError, InvalidRequest

_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{4,24}")


@dataclass(frozen=True, slots=True)
class Text:
    number: str
    body: str


def read_text(message: Mapping[str, Any]) -> Text:
    """InvalidRequest names the field that this engine cannot send."""
    to, text = message.get("to"), message.get("text")
    if message.get("type", "text") != "text":
        raise InvalidRequest("cannot send: this engine sends texts only", field="type")
    if not isinstance(text, str) or not text:
        raise InvalidRequest("cannot send: text is missing", field="text")
    if not isinstance(to, str) or not _PHONE.fullmatch(bare := to.split("@")[0].strip()):
        raise InvalidRequest("cannot send: `to` is no phone number", field="to")
    if to.endswith("@g.us"):
        raise InvalidRequest("cannot send: this engine cannot send to groups", field="to")
    return Text(re.sub(r"[^0-9]", "", bare), text)


async def send_text(server: WhaticketServer, row: Row, text: Text, key: str) -> Mapping[str, Any]:
    body = {"number": text.number, "body": text.body, "whatsappId": row.id}
    try:
        answer = await server.send(row.token or key, body)
    except ServerDown as down:
        if down.reason == "timeout":
            return {"id": "", "outcome": "unknown", "cause": "no answer in time"}
        raise
    if not answer.good:
        raise EngineError(f"cannot send: the server answers {answer.status}", code="not_sent")
    return {"id": "", "outcome": "sent"}
