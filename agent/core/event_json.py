"""A journal entry and a moment as JSON shows them."""

from datetime import UTC, datetime
from typing import Any

from agent.core.model import JournalEntry


def wall_text(wall: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds; None and 0 (never) give None."""
    if not wall:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def show_event(entry: JournalEntry) -> dict[str, Any]:
    return {
        "cursor": entry.cursor,
        "time": wall_text(entry.wall),
        "category": entry.category.value,
        "kind": entry.kind,
        "instance": entry.instance,
        "sentence": entry.sentence,
        "detail": dict(entry.detail),
    }
