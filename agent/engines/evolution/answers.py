"""What the server's answers mean: refusals in its four forms, states, codes to scan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.engines.evolution.claims import Live
from agent.engines.remote.http import Answer, ServerDown
from agent.errors import EngineError

_MAYBE_SECRET = re.compile(r"\S{25,}|\+?\d[\d ().-]{6,}\d")


@dataclass(frozen=True, slots=True)
class Shown:
    """What `connect` answers: a state, or the code to scan now, or neither yet."""

    state: str = ""
    code: str = field(default="", repr=False)
    pairing_code: str = field(default="", repr=False)
    count: int = 0


def trouble(what: str, answer: Answer) -> ServerDown | None:
    """What this answer says of the whole server: a wrong key, no licence, a failing proxy."""
    if answer.status == 401:
        return ServerDown(what, "refused_key", "it refuses the key")
    if answer.status == 403 and "Missing global api key" in refusal_words(answer.body):
        return ServerDown(what, "refused_key", "it wants its global key")
    if answer.status == 503 and _field(answer.body, "code") == "LICENSE_REQUIRED":
        return ServerDown(what, "licence_missing", "it waits for its licence to be activated")
    if answer.status > 500:
        return ServerDown(what, "failing", f"it answers {answer.status}")
    if answer.status == 404 and (answer.body is None or _no_route(answer.body)):
        return ServerDown(what, "not_found", "it does not know this address")
    return None


def failed(what: str, answer: Answer, code: str = "remote_refused") -> EngineError:
    """A refusal in the server's own words, without what may be secret."""
    words = _MAYBE_SECRET.sub("…", refusal_words(answer.body))[:160]
    return EngineError(f"cannot {what}: {words or f'it answers {answer.status}'}", code=code)


def refused(answer: Answer) -> bool:
    """`connect` and `restart` refuse with status 200 and `error: true`, 1.8 with an empty body."""
    return not answer.good or answer.body is None or _field(answer.body, "error") is True


def missing(answer: Answer) -> bool:
    words = refusal_words(answer.body)
    return answer.status == 404 and ("does not exist" in words or "not found" in words)


def refusal_words(body: Any) -> str:
    """The texts under `response.message` or `message`, however deep the arrays go."""
    response = _field(body, "response")
    inner = response if isinstance(response, Mapping) else body
    message = _field(inner, "message")
    return "; ".join(_texts(message, 4))


def read_state(body: Any) -> Live | None:
    """None where the answer holds no state."""
    inner = _field(body, "instance")
    if not isinstance(inner, Mapping):
        return None
    state = inner.get("state")
    if state is None:
        return Live.UNLOADED
    return Live(state) if state in (Live.OPEN, Live.CONNECTING, Live.CLOSE) else None


def read_shown(body: Any) -> Shown:
    inner = _field(body, "instance")
    if isinstance(inner, Mapping):
        state = inner.get("state", inner.get("status"))
        qr = read_shown(_field(body, "qrcode")) if "qrcode" in body else Shown()
        return Shown(_text(state), qr.code, qr.pairing_code, qr.count)
    count = _field(body, "count")
    return Shown(
        code=_text(_field(body, "code")),
        pairing_code=_text(_field(body, "pairingCode")),
        count=count if isinstance(count, int) and not isinstance(count, bool) else 0,
    )


def _no_route(body: Any) -> bool:
    return refusal_words(body).startswith("Cannot ")


def _field(body: Any, key: str) -> Any:
    return body.get(key) if isinstance(body, Mapping) else None


def _text(value: Any) -> str:
    return value[:4096] if isinstance(value, str) else ""


def _texts(message: Any, depth: int) -> list[str]:
    if isinstance(message, str):
        return [message[:300]]
    if isinstance(message, list) and depth:
        return [text for part in message[:5] for text in _texts(part, depth - 1)]
    return []
