"""Reads single values out of what a server sent: checked for their type, cut to a length."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def inside(raw: Any, *keys: str) -> Any:
    """The value below these keys; None where one of them is missing."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def text(raw: Any, most: int = 200) -> str:
    """The text; "" for any other value."""
    return raw[:most] if isinstance(raw, str) else ""


def whole(raw: Any) -> int | None:
    return raw if type(raw) is int else None


def moment(raw: Any) -> float:
    """Unix seconds of an ISO time; 0.0 for any other value."""
    try:
        return datetime.fromisoformat(raw).timestamp() if isinstance(raw, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
