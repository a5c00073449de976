"""Cursors that a spool never gave: it went on above them, so that none is given twice. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from agent.wings.messages.record import gap, unsure_gap
from agent.wings.messages.spool.damage import Damage, missing_in

MOST = 32
"""Of which a spool tells; older ones count as missing records."""


class Hole(NamedTuple):
    after: int
    """The last cursor before it, and the first one behind it."""
    first: int
    since: float = 0.0
    until: float = 0.0


def read_holes(raw: Sequence[Any]) -> list[Hole]:
    """Those of a file; ValueError or TypeError for anything else."""
    return [
        Hole(int(after), int(first), float(since), float(until))
        for after, first, since, until in raw
    ]


def gaps(
    first: int, last: int, since: float, holes: Sequence[Hole], damage: Sequence[Damage]
) -> Iterator[dict[str, Any]]:
    """What a reader gets in place of these cursors, of which none is there."""
    for hole in holes:
        low, high = max(first, hole.after + 1), min(last, hole.first - 1)
        if low > high:
            continue
        yield from _gap(first, low - 1, since, damage)
        # A reader that stands inside a hole had records of a spool that is gone: this is a copy of
        # before them.
        if low > hole.after + 1:
            yield unsure_gap(low, high, hole.since, hole.until)
        first = high + 1
    yield from _gap(first, last, since, damage)


def _gap(first: int, last: int, since: float, damage: Sequence[Damage]) -> Iterator[dict[str, Any]]:
    missing = missing_in(damage, first, last)
    if first <= last and missing > 0:
        yield gap(first, last, since, missing)


def never_given(first: int, last: int, holes: Sequence[Hole]) -> int:
    """How many of these cursors stand for nothing."""
    ends = ((max(first, it.after + 1), min(last, it.first - 1)) for it in holes)
    return sum(max(high - low + 1, 0) for low, high in ends)
