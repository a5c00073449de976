"""The rows of `scripts/bench density` and their goals: ours, in packs, may be no worse in any of
them than a plain bot, pm2 or Evolution, and need a third of Evolution's memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from scripts.benches.baileys import BOT, KEPT
from scripts.benches.report import OURS, Goal, Row

ALONE, EVOLUTION = "wa-agent, a Node each", "Evolution API"
KINDS = (OURS, EVOLUTION, BOT, KEPT, ALONE)
"""Ours is the pack."""
FIRST = 2
"""So many of them are measured with all sizes before the others: a run may be short of time."""
SIZES = (1, 20, 50, 200)
PACK, PACKED = 50, 5.0
"""Sessions in a pack, and MiB of one of them."""
SHARE = 1 / 3
"""Of Evolution's memory."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A measure of each size; ours may be no more than the least of the others."""

    key: str
    measure: str
    unit: str

    def rows(self, size: int, figures: Mapping[str, list[float]]) -> Iterator[Row]:
        row = Row(f"{size} together: {self.measure}", self.unit, figures)
        goals = [*self._goals(size, row)] if OURS in figures else []
        yield replace(row, goal=goals[0]) if goals else row
        for goal in goals[1:]:
            yield Row(f"… {goal.text}", self.unit, {OURS: figures[OURS]}, goal)

    def _goals(self, size: int, row: Row) -> Iterator[Goal]:
        if self.key == "memory" and size >= PACK:
            yield Goal("", PACKED)
        if self.key == "memory" and (theirs := row.median(EVOLUTION)) is not None:
            yield Goal("a third of Evolution's", theirs * SHARE)
        others = {name: row.median(name) for name in (BOT, KEPT, EVOLUTION)}
        if least := sorted((value, name) for name, value in others.items() if value is not None):
            yield Goal(f"{least[0][1]}'s", least[0][0])


SHAPES = (
    Shape("memory", "memory of one session, all its processes", "MiB PSS"),
    Shape("idle", "processor time of one session, idle", "s/min"),
    Shape("start", "all started together, paired → all connected", "s"),
    Shape("latency", "a message a second each: written → received", "ms"),
    Shape("late", "… 95 % within", "ms"),
    Shape("lost", "… lost", ""),
    Shape("killed", "every Node killed → all connected", "s"),
)


def rows(
    sizes: Sequence[int], found: Mapping[tuple[int, str], Mapping[str, list[float]]]
) -> Iterator[Row]:
    for size in sizes:
        for shape in SHAPES:
            of = {kind: found.get((size, kind), {}).get(shape.key) for kind in KINDS}
            if figures := {kind: runs for kind, runs in of.items() if runs}:
                yield from shape.rows(size, figures)
