"""Reads what the server's webhook sends. Its bodies are not trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.words import Happening
from agent.engines.evolution.answers import Shown, read_shown
from agent.engines.evolution.claims import Live
from agent.engines.evolution.rows import account_of
from agent.engines.raw import inside, moment, text, whole

OLD_EVENTS = (
    "CONNECTION_UPDATE",
    "QRCODE_UPDATED",
    "MESSAGES_UPSERT",
    "MESSAGES_UPDATE",
    "SEND_MESSAGE",
)
"""The events of 1.8, which refuses a subscription to one that it does not know."""
EVENTS = (
    *OLD_EVENTS,
    "STATUS_INSTANCE",
    "LOGOUT_INSTANCE",
    "REMOVE_INSTANCE",
)

_LATE = 1500.0
"""Seconds for which the server repeats an event that did not get through."""
_LONGEST = 120
_TYPES = {"conversation": "text", "extendedTextMessage": "text"}
_ACKS = {
    "PENDING": "clock",
    "SERVER_ACK": "server",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "played",
}


@dataclass(frozen=True, slots=True)
class HookEvent:
    kind: str
    session: str
    """The session's name on the server."""
    stamp: float
    """By the server's clock and in its own zone; 0 = the event has none."""
    content: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class StateChange:
    """CONNECTION_UPDATE."""

    live: Live
    code: int | None
    account: str


def read_event(raw: Mapping[str, Any]) -> HookEvent | None:
    """None for all that is no event of `EVENTS` about a session."""
    name, session = raw.get("event"), raw.get("instance")
    if not isinstance(name, str) or not isinstance(session, str) or not session:
        return None
    kind = name[:40].upper().replace(".", "_").replace("-", "_")
    if kind not in EVENTS:
        return None
    return HookEvent(kind, session, moment(raw.get("date_time")), raw.get("data"))


def is_outdated(event: HookEvent, newest: float) -> bool:
    """Whether the server repeats an event after a newer one. A jump of its zone is none."""
    return 0 < event.stamp < newest and newest - event.stamp < _LATE


def read_state_change(content: Any) -> StateChange | None:
    state = inside(content, "state")
    if state not in (Live.OPEN, Live.CONNECTING, Live.CLOSE, Live.REFUSED):
        return None
    code, account = whole(content.get("statusReason")), account_of(content.get("wuid"))
    return StateChange(Live(state), code, account)


def read_open(content: Any) -> bool:
    change = read_state_change(content)
    return change is not None and change.live is Live.OPEN


def read_end(content: Any) -> int | None:
    """STATUS_INSTANCE: WhatsApp's number of a final close."""
    closed = inside(content, "status") == "closed"
    return whole(inside(content, "disconnectionReasonCode")) if closed else None


def read_code(content: Any) -> Shown | None:
    """The code to scan; None where the event holds none."""
    shown = read_shown(inside(content, "qrcode"))
    return shown if shown.code else None


def codes_used_up(content: Any) -> bool:
    return "QR code limit" in text(inside(content, "message"), 4096)


def read_messages(content: Any) -> list[Happening]:
    """Messages in and out: never a text, and a peer only of an incoming one."""
    messages = []
    for raw in _rows_of(content):
        key = inside(raw, "key")
        if not (id := text(inside(key, "id"), _LONGEST)):
            continue
        kind = text(raw.get("messageType"), _LONGEST)
        detail = {"direction": "in", "type": _TYPES.get(kind, kind or "unknown"), "id": id}
        if key.get("fromMe") is True:
            detail["direction"] = "out"
        else:
            detail["peer"] = account_of(key.get("participant") or key.get("remoteJid"))
        messages.append(Happening("message", detail))
    return messages


def read_acks(content: Any) -> list[Happening]:
    """Acknowledgements of our messages; 1.8 and 2.x name the message's id differently."""
    acks = []
    for raw in _rows_of(content):
        if inside(raw, "fromMe") is not True:
            continue
        id, ack = raw.get("keyId") or raw.get("id"), _ACKS.get(str(raw.get("status")))
        if ack and (id := text(id, _LONGEST)):
            acks.append(Happening("ack", {"id": id, "ack": ack}))
    return acks


def _rows_of(content: Any) -> list[Any]:
    return (content if isinstance(content, list) else [content])[:100]


class SeenMessages:
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
