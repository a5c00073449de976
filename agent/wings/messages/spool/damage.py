"""Cursors that no line has any more: how many of them were records, and how many of those count as
lost. Pure."""

from collections.abc import Iterable, Sequence

MOST = 64
"""Of which a spool tells apart; beyond them the two oldest are one."""

Damage = list[int]
"""The first cursor, the last one, and how many records are gone at most: after a damaged end
cursors are left out that were never given. A list, as the file of the state has it."""


def missing_in(holes: Iterable[Sequence[int]], first: int, last: int) -> int:
    """How many records are gone at most of a range in which no line is."""
    never = 0
    for begin, end, missing in holes:
        width = min(end, last) - max(begin, first) + 1
        never += max(width - missing, 0)
    return last - first + 1 - never


def merge(
    known: Sequence[Damage], found: Sequence[Damage], settled: int
) -> tuple[list[Damage], int]:
    """The holes from now on, and how many records went since these were known that were not
    delivered. What was known may lie in a larger one now."""
    holes: list[Damage] = []
    lost = 0
    for first, last, most in found:
        if any(begin <= first and last <= end for begin, end, _ in known):
            holes.append([first, last, missing_in(known, first, last)])
            continue
        inside = [each for each in known if first <= each[0] and each[1] <= last]
        missing = min(missing_in(inside, first, last), most)
        holes.append([first, last, missing])
        fresh = missing - sum(each[2] for each in inside)
        lost += max(min(fresh, first + missing - 1 - max(first - 1, settled)), 0)
    while len(holes) > MOST:
        (first, _, one), (_, last, other) = holes[:2]
        holes[:2] = [[first, last, one + other]]
    return holes, lost
