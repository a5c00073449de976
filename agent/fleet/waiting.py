"""What waits in the fleet's database for a machine or a reader, and how a machine hears of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CommandRow:
    id: str
    session: str
    verb: str
    arguments: Mapping[str, Any]
    idempotency_key: str
    asked_by: str
    state: str
    """waiting, begun or ended."""
    outcome: str
    """What the owner said at the end, or expired, deleted, unknown: who began it was lost."""
    answer: Mapping[str, Any] | None
    age_seconds: float
    machine: int | None
    """The machine that took it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A reason to look before the next renewal; it tells nothing else, and it may get lost."""

    kind: str
    """changes: of what a machine owns; command: one waits for it."""
    machine: int | None
    """None: the connection was away, and any notice may have been missed."""


@dataclass(frozen=True, slots=True)
class ViewRow:
    """What an owner last said of a session."""

    id: str
    machine: int
    """The machine that said it: the owner, or the one before it."""
    view: Mapping[str, Any]
    age_seconds: float
