"""Reads what the server's webhook sends. Its bodies are not trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.core.words import Happening
from agent.engines.evolution.answers import Shown, read_shown
from agent.engines.evolution.claims import Live
from agent.engines.evolution.messages import ACKS
from agent.engines.evolution.rows import account_of

OLD_EVENTS = (
    "CONNECTION_UPDATE",
    "QRCODE_UPDATED",
    "MESSAGES_UPSERT",
    "MESSAGES_UPDATE",
    "SEND_MESSAGE",
)
"""The events of 1.8, which refuses a subscription to any other."""
EVENTS = (*OLD_EVENTS, "STATUS_INSTANCE", "LOGOUT_INSTANCE", "REMOVE_INSTANCE")

_LATE = 1500.0
"""Seconds for which the server repeats an event that did not get through."""
_TYPES = {"conversation": "text", "extendedTextMessage": "text"}


@dataclass(frozen=True, slots=True)
class HookEvent:
    kind: str
    session: str
    """The session's name on the server."""
    stamp: float
    """By the server's clock and in its own zone; 0 = the event has none."""
    content: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class StateTold:
    live: Live
    code: int | None
    account: str


def read_event(told: Mapping[str, Any]) -> HookEvent | None:
    """None for all that is no event of `EVENTS` about a session."""
    name, session = told.get("event"), told.get("instance")
    if not isinstance(name, str) or not isinstance(session, str) or not session:
        return None
    kind = name[:40].upper().replace(".", "_").replace("-", "_")
    if kind not in EVENTS:
        return None
    return HookEvent(kind, session, _stamp(told.get("date_time")), told.get("data"))


def outdated(event: HookEvent, newest: float) -> bool:
    """Whether the server repeats an event after a newer one. A jump of its zone is none."""
    return 0 < event.stamp < newest and newest - event.stamp < _LATE


def state_told(content: Any) -> StateTold | None:
    if not isinstance(content, Mapping):
        return None
    state = content.get("state")
    if state not in (Live.OPEN, Live.CONNECTING, Live.CLOSE, Live.REFUSED):
        return None
    return StateTold(
        Live(state), _number(content.get("statusReason")), account_of(content.get("wuid"))
    )


def end_told(content: Any) -> int | None:
    """STATUS_INSTANCE: WhatsApp's number of a final close."""
    if not isinstance(content, Mapping) or content.get("status") != "closed":
        return None
    return _number(content.get("disconnectionReasonCode"))


def code_told(content: Any) -> Shown | None:
    """The code to scan; None where the event holds none."""
    qr = content.get("qrcode") if isinstance(content, Mapping) else None
    shown = read_shown(qr)
    return shown if shown.code else None


def codes_used_up(content: Any) -> bool:
    if not isinstance(content, Mapping):
        return False
    message = content.get("message")
    return isinstance(message, str) and "QR code limit" in message


def messages_told(content: Any) -> list[Happening]:
    """Messages in and out: never a text, and a peer only of an incoming one."""
    found = []
    for each in (content if isinstance(content, list) else [content])[:100]:
        key = each.get("key") if isinstance(each, Mapping) else None
        id = _word(key.get("id")) if isinstance(key, Mapping) else ""
        if not isinstance(key, Mapping) or not id:
            continue
        kind = _word(each.get("messageType"))
        detail = {"direction": "in", "type": _TYPES.get(kind, kind or "unknown"), "id": id}
        if key.get("fromMe") is True:
            detail["direction"] = "out"
        else:
            detail["peer"] = account_of(key.get("participant") or key.get("remoteJid"))
        found.append(Happening("message", detail))
    return found


def acks_told(content: Any) -> list[Happening]:
    """Acknowledgements of our messages; 1.8 and 2.x name the message's id differently."""
    found = []
    for each in (content if isinstance(content, list) else [content])[:100]:
        if not isinstance(each, Mapping) or each.get("fromMe") is not True:
            continue
        id, ack = _word(each.get("keyId") or each.get("id")), ACKS.get(str(each.get("status")))
        if id and ack:
            found.append(Happening("ack", {"id": id, "ack": ack}))
    return found


class Seen:
    """The newest messages' ids: the server sends again what was not answered in time."""

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._ids: dict[tuple[str, str], None] = {}

    def first(self, session: str, id: str) -> bool:
        key = (session, id)
        if key in self._ids:
            return False
        if len(self._ids) >= self._most:
            del self._ids[next(iter(self._ids))]
        self._ids[key] = None
        return True


def _stamp(value: Any) -> float:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(value: Any) -> str:
    return value[:120] if isinstance(value, str) else ""
