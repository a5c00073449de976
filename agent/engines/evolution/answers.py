"""What the server's answers mean: refusals in its four forms, states, codes to scan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.engines.evolution.claims import Live
from agent.engines.raw import inside, text, whole
from agent.engines.remote.answers import Answer, ServerDown
from agent.errors import EngineError

_LONGEST = 4096
_MAYBE_SECRET = re.compile(r"\S{25,}|\+?\d[\d ().-]{6,}\d")


@dataclass(frozen=True, slots=True)
class Shown:
    """What `connect` answers: a state, or the code to scan now, or neither yet."""

    state: str = ""
    code: str = field(default="", repr=False)
    pairing_code: str = field(default="", repr=False)
    count: int = 0


def server_fault(what: str, answer: Answer) -> ServerDown | None:
    """What this answer says of the whole server: a wrong key, no licence, a failing proxy."""
    if answer.status == 401:
        return ServerDown(what, "refused_key", "it refuses the key")
    if answer.status == 403 and "Missing global api key" in refusal_words(answer.body):
        return ServerDown(what, "refused_key", "it requires its global key")
    if answer.status == 503 and inside(answer.body, "code") == "LICENSE_REQUIRED":
        return ServerDown(what, "licence_missing", "its licence is not activated")
    if answer.status > 500:
        return ServerDown(what, "failing", f"it answers {answer.status}")
    no_route = answer.body is None or refusal_words(answer.body).startswith("Cannot ")
    if answer.status == 404 and no_route:
        return ServerDown(what, "not_found", "it has no such route")
    return None


def refusal(what: str, answer: Answer, code: str = "remote_refused") -> EngineError:
    """In the server's own words, without what may be secret."""
    words = _MAYBE_SECRET.sub("…", answer.without_ours(refusal_words(answer.body)))[:160]
    return EngineError(f"cannot {what}: {words or f'it answers {answer.status}'}", code=code)


def is_refused(answer: Answer) -> bool:
    """`connect` and `restart` refuse with status 200 and `error: true`, 1.8 with an empty body."""
    return not answer.good or answer.body is None or inside(answer.body, "error") is True


def is_missing(answer: Answer) -> bool:
    words = refusal_words(answer.body)
    return answer.status == 404 and ("does not exist" in words or "not found" in words)


def refusal_words(body: Any) -> str:
    """The texts under `response.message` or `message`, however deep the arrays go."""
    response = inside(body, "response")
    holder = response if isinstance(response, Mapping) else body
    return "; ".join(_texts(inside(holder, "message"), 4))


def read_state(body: Any) -> Live | None:
    """None where the answer holds no state."""
    session = inside(body, "instance")
    if not isinstance(session, Mapping):
        return None
    state = session.get("state")
    if state is None:
        return Live.UNLOADED
    return Live(state) if state in (Live.OPEN, Live.CONNECTING, Live.CLOSE) else None


def read_shown(body: Any) -> Shown:
    session = inside(body, "instance")
    if isinstance(session, Mapping):
        state = session.get("state", session.get("status"))
        return replace(read_shown(body.get("qrcode")), state=text(state, _LONGEST))
    return Shown(
        code=text(inside(body, "code"), _LONGEST),
        pairing_code=text(inside(body, "pairingCode"), _LONGEST),
        count=whole(inside(body, "count")) or 0,
    )


def _texts(message: Any, depth: int) -> list[str]:
    if isinstance(message, str):
        return [message[:300]]
    if isinstance(message, list) and depth:
        return [words for part in message[:5] for words in _texts(part, depth - 1)]
    return []
