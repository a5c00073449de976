"""What a session's worker tells of the messages that it keeps, read and checked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.engines.receiver import is_answerable
from agent.errors import TryLater

_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class MessagePage:
    records: tuple[Mapping[str, Any], ...]
    """Oldest first."""
    next: int
    """The cursor to go on behind."""
    oldest: int
    newest: int
    more: bool
    """There is more already."""


@dataclass(frozen=True, slots=True)
class KeptState:
    """What a worker told last."""

    newest: int = 0
    """The cursor of the last record."""
    waiting: int = 0
    """Records that not everybody has who gets them."""
    bytes: int = 0
    lost: int = 0
    """Records that went before everybody had them."""
    media_files: int = 0
    media_bytes: int = 0
    """Of the files of messages that are kept."""
    holes: tuple[tuple[int, int], ...] = ()
    """Between these cursors there was never a record."""

    def between(self, after: int, last: int) -> int:
        """How many records may lie behind the one and up to the other."""
        ends = ((max(after, low), min(last, first - 1)) for low, first in self.holes)
        return max(last - after, 0) - sum(max(high - low, 0) for low, high in ends)


def erased(after: int) -> dict[str, Any]:
    """The gap before a session's first record, for a reader that had others of it: how many it
    missed nobody knows."""
    gap = {"v": 1, "id": f"g:{after}:erased", "kind": "message_gap", "cursor": 0}
    return {**gap, "kept": time.time()}


def read_page(raw: Mapping[str, Any], after: int) -> MessagePage:
    records = raw.get("records")
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise TryLater("cannot read messages: the worker's answer has another form", code="slow")
    newest = whole(raw.get("newest"))
    going_on = whole(raw.get("next")) or after
    return MessagePage(
        tuple(map(_with_answerable, records)),
        going_on,
        whole(raw.get("oldest")),
        newest,
        raw.get("more") is True,
    )


def _with_answerable(record: dict[str, Any]) -> dict[str, Any]:
    """A message says whether the agent takes an answer to its chat."""
    if record.get("kind") != "message":
        return record
    return {**record, "answerable": is_answerable(str(record.get("chat", "")))}


def read_state(raw: Mapping[str, Any]) -> KeptState:
    return KeptState(
        whole(raw.get("newest")),
        whole(raw.get("waiting")),
        whole(raw.get("bytes")),
        whole(raw.get("lost")),
        whole(raw.get("media_files")),
        whole(raw.get("media_bytes")),
        tuple((whole(low), whole(first)) for low, first in raw.get("holes", ())),
    )


def whole(value: Any) -> int:
    """0 for what is no count."""
    right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if right else 0
