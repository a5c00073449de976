"""The file of a message, which the server loads from WhatsApp and gives as one text."""

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from agent.engines.evolution.answers import refusal_words
from agent.engines.evolution.api import EvolutionApi
from agent.engines.raw import inside
from agent.engines.remote.answers import ServerDown, segment
from agent.errors import EngineError

_PATIENCE = 60.0
_PIECE = 256 * 1024 // 4 * 4
"""Characters of base64: whole groups of four."""
_GONE = ("Message not found", "not found", "404", "410")


async def load_media(
    api: EvolutionApi, name: str, record: Mapping[str, Any]
) -> AsyncGenerator[bytes, None]:
    """In pieces. Its whole answer is in memory meanwhile: 8 MiB at most, a file of six."""
    kept = record["_media"]
    key = {"remoteJid": kept.get("chat"), "fromMe": kept.get("from_me"), "id": kept.get("id")}
    path = f"/chat/getBase64FromMediaMessage/{segment(name)}"
    try:
        answer = await api.ask("POST", path, {"message": {"key": key}}, timeout=_PATIENCE)
    except ServerDown as down:
        raise EngineError(f"cannot load a file: {down.cause}", code="media_unreachable") from down
    if not answer.good:
        gone = any(sign in refusal_words(answer.body) for sign in _GONE)
        raise EngineError(
            "cannot load a file: its server "
            + ("has it no more" if gone else f"answers {answer.status}"),
            code="media_gone" if gone else "media_unreachable",
        )
    whole = inside(answer.body, "base64")
    if not isinstance(whole, str):
        raise EngineError("cannot load a file: the answer holds none", code="media_damaged")
    for start in range(0, len(whole), _PIECE):
        try:
            yield base64.b64decode(whole[start : start + _PIECE], validate=True)
        except (binascii.Error, ValueError) as error:
            raise EngineError("cannot load a file: not base64", code="media_damaged") from error
