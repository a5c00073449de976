"""A message of the outbox, as its file has it and as the API shows it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.event_json import wall_text
from agent.core.model import InstanceId
from agent.engines.phones import digits_of
from agent.engines.receiver import person_of
from agent.wings.messages.out.states import State

ID_PATTERN = "[A-Za-z0-9._:@=-]{1,200}"
"""Of the outbox ("out_…") or of WhatsApp."""


@dataclass(frozen=True, slots=True)
class OutMessage:
    """One row, without what it says: the content has a column of its own, and only who sends it
    reads that."""

    number: int
    """Its place: messages of a chat leave in this order."""
    id: str
    instance: InstanceId
    born: float
    """When its instance was made: another one of that name sends none of it."""
    chat: str
    type: str
    state: State
    accepted_wall: float
    expires_wall: float
    changed_wall: float
    repeats: str = field(default="", repr=False)
    """The hash of its Idempotency-Key; "" = it has none, or one that may be used again."""
    digest: str = field(default="", repr=False)
    """Of the request with that key."""
    message_id: str = ""
    """WhatsApp's."""
    tries: int = 0
    begun_wall: float = 0.0
    """When a try began that may have sent it; 0 = it surely has not left."""
    not_before_wall: float = 0.0
    reason: str = ""
    sentence: str = ""
    """Why it waits, or ended so."""
    file: str = ""
    """The name of its media file; "" = it is in the content, or there is none."""
    size: int = 0
    """Bytes of content and file."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """The engine's, when it was sent."""


def show_message(message: OutMessage, waits: str = "") -> dict[str, Any]:
    """`waits`: why its session sends nothing now."""
    accepted = message.state is State.ACCEPTED
    return {
        "id": message.id,
        "instance": message.instance,
        "to": message.chat,
        "type": message.type,
        "state": message.state.value,
        "message_id": message.message_id or None,
        "reason": message.reason,
        "sentence": (waits if accepted else "") or message.sentence,
        "tries": message.tries,
        "accepted": wall_text(message.accepted_wall),
        "changed": wall_text(message.changed_wall),
        "expires": wall_text(message.expires_wall) if accepted else None,
        "next_try": wall_text(message.not_before_wall) if accepted else None,
    }


def chat_of(to: str) -> str:
    """One name for a chat however its number is written: its messages keep one order."""
    name, at, domain = person_of(to.strip()).partition("@")
    if at and domain not in ("c.us", "s.whatsapp.net"):
        return f"{name}@{domain}"
    return digits_of(name) or to.strip()


def hash_of(whose: tuple[str, ...], born: float) -> str:
    """Of an Idempotency-Key: the file reveals none. Another instance of that name has another."""
    return hashlib.sha256("\0".join((*whose, str(born))).encode()).hexdigest()
