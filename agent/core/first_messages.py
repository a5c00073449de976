"""Whether a session that was moved in can read: its first messages are counted."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

FIRST = 10
"""So many messages are counted."""
WITHIN = 600.0
"""Seconds after the first message within which the others come, or are sent again."""


@dataclass(frozen=True, slots=True)
class FirstMessages:
    read: int = 0
    """Read as they came."""
    repeated: int = 0
    """Read when their sender sent them again."""
    unread: tuple[str, ...] = ()
    """The ids of messages that could not be read yet."""
    since_wall: float = 0.0
    """When the first one came."""
    over: bool = False

    @property
    def came(self) -> int:
        return self.read + self.repeated + len(self.unread)

    @property
    def sentence(self) -> str:
        if not self.came:
            return "moved in; no message has come since"
        words = f"moved in; {self.read + self.repeated} of its first {self.came} messages read"
        if self.repeated:
            words += f", {self.repeated} of them when they were sent again"
        return words if self.over else f"{words} so far"


def note_read(first: FirstMessages, id: str, now_wall: float) -> FirstMessages:
    if first.over:
        return first
    if id in first.unread:
        unread = tuple(other for other in first.unread if other != id)
        first = replace(first, repeated=first.repeated + 1, unread=unread)
    elif first.came < FIRST:
        first = replace(_begun(first, now_wall), read=first.read + 1)
    return replace(first, over=first.came >= FIRST and not first.unread)


def note_unread(first: FirstMessages, id: str, now_wall: float) -> FirstMessages:
    if first.over or not id or id in first.unread or first.came >= FIRST:
        return first
    return replace(_begun(first, now_wall), unread=(*first.unread, id))


def end_in_time(first: FirstMessages, now_wall: float) -> FirstMessages:
    """End the wait for messages that could not be read so far."""
    due = first.since_wall and now_wall - first.since_wall >= WITHIN
    return replace(first, over=True) if due and not first.over else first


def _begun(first: FirstMessages, now_wall: float) -> FirstMessages:
    return first if first.since_wall else replace(first, since_wall=now_wall)


def stored(first: FirstMessages | None) -> str:
    """As the session's record has it."""
    return "" if first is None else json.dumps(asdict(first))


def read_stored(text: str) -> FirstMessages | None:
    """None for a session that was not moved in, or whose count cannot be read."""
    try:
        kept = json.loads(text) if text else None
        return FirstMessages(**{**kept, "unread": tuple(kept["unread"])}) if kept else None
    except (ValueError, TypeError, KeyError):
        return None


def shown(first: FirstMessages | None) -> Mapping[str, Any] | None:
    """For the API: counts, and the sentence that says what they mean."""
    if first is None:
        return None
    return {
        "read": first.read,
        "repeated": first.repeated,
        "unread": len(first.unread),
        "over": first.over,
        "sentence": first.sentence,
    }
