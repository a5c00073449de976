"""A table of what was measured, in Markdown.

Every figure is better when it is smaller; the median of its runs is what counts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

OURS = "wa-agent"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that ours must reach. `limit` None: the program to compare with was not measured."""

    text: str
    limit: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One measure; `figures` holds every single run by the name of who was measured."""

    measure: str
    unit: str
    figures: Mapping[str, Sequence[float]]
    goal: Goal | None = None

    def median(self, name: str) -> float | None:
        runs = self.figures.get(name)
        return statistics.median(runs) if runs else None

    @property
    def met(self) -> bool | None:
        ours = self.median(OURS)
        if self.goal is None or self.goal.limit is None or ours is None:
            return None
        return ours <= self.goal.limit


@dataclass(frozen=True, slots=True)
class Report:
    subject: str
    machine: str
    versions: Mapping[str, str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    began: datetime = field(default_factory=lambda: datetime.now().astimezone())

    @property
    def names(self) -> list[str]:
        """The systems that were measured, ours first, the rest in the order of `versions`."""
        seen = {name for row in self.rows for name in row.figures}
        return [name for name in dict.fromkeys((OURS, *self.versions)) if name in seen]

    def markdown(self) -> str:
        names = self.names
        heads = ["measure", *names, "goal", "met?"]
        lines = [
            f"# {self.subject}, {self.began:%Y-%m-%d %H:%M}",
            "",
            f"{self.machine}.",
            "Versions: " + ", ".join(f"{name} {is_}" for name, is_ in self.versions.items()) + ".",
            "Medians; in parentheses ours ÷ theirs: below 1 ours is the smaller (better) one.",
            "",
            "| " + " | ".join(heads) + " |",
            "|" + "---|" * len(heads),
        ]
        for row in self.rows:
            measure = f"{row.measure}, {row.unit}" if row.unit else row.measure
            cells = [measure, *(_cell(row, name) for name in names), *_goal(row)]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, folder: Path) -> Path:
        """The newest of each subject, and one with its date that stays."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (f"{self.subject}-{self.began:%Y%m%dT%H%M%S}", self.subject):
            written = folder / f"{name}.md"
            written.write_text(self.markdown(), encoding="utf-8")
        return written


def shown(value: float) -> str:
    """Three digits that mean something, no more."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def _cell(row: Row, name: str) -> str:
    value, ours = row.median(name), row.median(OURS)
    if value is None:
        return "-"
    if name == OURS or ours is None or not value:
        return shown(value)
    return f"{shown(value)} ({shown(ours / value)}x)"


def _goal(row: Row) -> tuple[str, str]:
    if row.goal is None:
        return "", ""
    if row.goal.limit is None:
        return row.goal.text, "not measured"
    verdict = {True: "met", False: "**not met**", None: "not measured"}[row.met]
    text = f"≤ {shown(row.goal.limit)}"
    return f"{row.goal.text}: {text}" if row.goal.text else text, verdict
