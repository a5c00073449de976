"""What happened too often to be told one by one, as sums: counts stay counts, and a sender whose
message was read is still known to be readable."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from agent.core.words import Happening

KIND = "left_out"
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
        self.counts[_word(happening)] += 1
        if not is_readable(happening):
            return
        self.readable += 1
        if len(self.senders) < MOST_SENDERS:
            self.senders[sender_of(detail)] = None

    def told(self) -> Happening:
        senders = [list(sender) for sender in self.senders if any(sender)]
        detail = {"counts": dict(self.counts), "readable": self.readable, "senders": senders}
        return Happening(KIND, detail)


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


def _word(happening: Happening) -> str:
    if happening.kind == "message":
        return f"message_{direction_of(happening.detail)}"
    return happening.kind


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
