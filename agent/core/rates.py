"""Counts of what happens: per minute, for the log, and as sums of what came too often to be passed
on one by one."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from agent.core.words import Happening

MINUTE = 60.0
_STRETCH = 10.0


@dataclass(frozen=True, slots=True)
class PerMinute:
    stretches: tuple[tuple[float, int], ...] = ()
    """When each stretch began, and how many came in it."""

    def note(self, now: float, more: int = 1) -> "PerMinute":
        begun = now - now % _STRETCH
        if self.stretches and self.stretches[-1][0] == begun:
            *older, (_, count) = self.stretches
            return PerMinute((*older, (begun, count + more)))
        return PerMinute((*_within(self.stretches, now), (begun, more)))

    def count(self, now: float) -> int:
        """The sum of the last minute, by whole stretches."""
        return sum(count for _, count in _within(self.stretches, now))


def _within(stretches: tuple[tuple[float, int], ...], now: float) -> tuple[tuple[float, int], ...]:
    # A stretch in the future comes from a clock that jumped.
    return tuple(stretch for stretch in stretches if now - MINUTE < stretch[0] <= now)


@dataclass(frozen=True, slots=True)
class LogLimit:
    """A few lines of a session in a minute: a flood of errors must not end the process by its
    log."""

    since: float = 0.0
    shown: int = 0
    hidden: int = 0

    def note(self, now: float, most: int = 20) -> "tuple[LogLimit, bool, int]":
        """True if this line is shown, and how many were hidden before it (once a minute)."""
        if not self.since <= now < self.since + MINUTE:
            return LogLimit(now, 1, 0), True, self.hidden
        if self.shown < most:
            return replace(self, shown=self.shown + 1), True, 0
        return replace(self, hidden=self.hidden + 1), False, 0


LEFT_OUT = "left_out"
MOST_SENDERS = 500
_MOST = 10**9
Sender = tuple[str, str, str]
"""The two forms of its address, and the group where it wrote; "" = none."""


@dataclass(slots=True)
class LeftOut:
    """Of one session, since the last sums were told."""

    counts: Counter[str] = field(default_factory=Counter)
    readable: int = 0
    senders: dict[Sender, None] = field(default_factory=dict)

    def add(self, happening: Happening) -> None:
        detail = happening.detail
        message = happening.kind == "message"
        self.counts[f"message_{direction_of(detail)}" if message else happening.kind] += 1
        if not is_readable(happening):
            return
        self.readable += 1
        if len(self.senders) < MOST_SENDERS:
            self.senders[sender_of(detail)] = None

    def told(self) -> Happening:
        senders = [list(sender) for sender in self.senders if any(sender)]
        detail = {"counts": dict(self.counts), "readable": self.readable, "senders": senders}
        return Happening(LEFT_OUT, detail)


def is_readable(happening: Happening) -> bool:
    """Whether a message could be read; one that this session wrote itself proves nothing."""
    detail = happening.detail
    if happening.kind != "message":
        return happening.kind == "read_later"
    came = detail.get("direction") != "out" or bool(detail.get("peer"))
    return came and detail.get("type") != "ciphertext"


def direction_of(detail: Mapping[str, Any]) -> str:
    return "out" if detail.get("direction") == "out" else "in"


def sender_of(detail: Mapping[str, Any]) -> Sender:
    return _text(detail.get("peer")), _text(detail.get("alias")), _text(detail.get("group"))


def read_counts(detail: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """By kind, of messages by `message_in` and `message_out`; what is no count is left out."""
    counts = detail.get("counts")
    for word, count in counts.items() if isinstance(counts, dict) else ():
        if is_count(count):
            yield str(word)[:64], count


def is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST


def read_senders(detail: Mapping[str, Any]) -> Iterator[Sender]:
    senders = detail.get("senders")
    for sender in senders[:MOST_SENDERS] if isinstance(senders, list) else ():
        if isinstance(sender, list) and len(sender) == 3:
            yield _text(sender[0]), _text(sender[1]), _text(sender[2])


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
