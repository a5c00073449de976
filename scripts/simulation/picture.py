"""The day's curves as an SVG: who is in which condition, restarts and logins per minute."""

import math
from collections.abc import Mapping, Sequence

from scripts.simulation.faults import DAY
from scripts.simulation.report import CONDITIONS
from scripts.simulation.tally import MINUTES, Tally

WAYS = ("#16794a", "#c4620a", "#8a9199")
PAINT = dict(
    zip(
        CONDITIONS,
        (
            "#2f9e63",
            "#b5d33d",
            "#c9ced3",
            "#8ecae6",
            "#4a78c2",
            "#e9a23b",
            "#d1495b",
            "#a06cd5",
            "#4d4d4d",
        ),
        strict=True,
    )
)
LEFT, TOP, WIDTH, HEIGHT, GAP = 70, 64, 900, 150, 56
STEP = 5
"""Minutes in one point of a curve: the picture stays small."""


def plot(tallies: Mapping[str, Tally]) -> str:
    """One panel of conditions for each way, one of restarts and one of logins for all."""
    parts: list[str] = []
    top = TOP
    for name, tally in tallies.items():
        parts += _conditions(tally, top, f"{name}: instances in each condition")
        top += HEIGHT + GAP
    counts = (
        ("restarts per minute, all machines (most in five)", "restarts"),
        ("logins per minute, all machines (most in five)", "logins"),
    )
    for title, field in counts:
        parts += _counts({name: getattr(one, field) for name, one in tallies.items()}, top, title)
        top += HEIGHT + GAP
    wide, high = LEFT + WIDTH + 20, top - GAP + 60
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            _legend(PAINT, 14),
            *parts,
            _legend(dict(zip(tallies, WAYS, strict=False)), high - 24),
            "</svg>\n",
        ]
    )


def _conditions(tally: Tally, top: float, title: str) -> list[str]:
    curves = {name: _means(tally.curves[name].per_minute()) for name in CONDITIONS}
    upper = [0.0] * len(next(iter(curves.values())))
    layers = []
    for name, values in curves.items():
        upper = [low + value / tally.instances for low, value in zip(upper, values, strict=True)]
        line = _points(upper, top)
        layers.append(
            f'<polygon points="{LEFT},{top + HEIGHT} {line} {LEFT + WIDTH},{top + HEIGHT}"'
            f' fill="{PAINT[name]}"/>'
        )
    # Each reaches down to the ground: the topmost condition is painted first.
    return [*reversed(layers), *_frame(top, title, ((0, "0 %"), (0.5, "50 %"), (1, "100 %")))]


def _counts(counts: Mapping[str, Sequence[int]], top: float, title: str) -> list[str]:
    decades = len(str(max(max(values) for values in counts.values())))
    marks = [(n / decades, f"{10**n:,}") for n in range(decades + 1)]
    parts = _frame(top, title, marks)
    # The agent's own curve last: on top.
    for colour, values in reversed(list(zip(WAYS, counts.values(), strict=False))):
        highest = [max(values[at : at + STEP]) for at in range(0, MINUTES, STEP)]
        line = _points([math.log10(one) / decades if one > 1 else 0.0 for one in highest], top)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    return parts


def _means(values: Sequence[float]) -> list[float]:
    return [sum(values[at : at + STEP]) / STEP for at in range(0, MINUTES, STEP)]


def _points(shares: Sequence[float], top: float) -> str:
    last = len(shares) - 1
    return " ".join(
        f"{LEFT + WIDTH * number / last:.0f},{top + HEIGHT * (1 - share):.1f}"
        for number, share in enumerate(shares)
    )


def _frame(top: float, title: str, marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{title}</text>']
    for share, label in marks:
        y = top + HEIGHT * (1 - share)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#00000022"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for hour in range(0, 25, 3):
        x = LEFT + WIDTH * hour * 3600 / DAY
        parts.append(
            f'<text x="{x:.0f}" y="{top + HEIGHT + 16}" text-anchor="middle">{hour}:00</text>'
        )
    return parts


def _legend(colours: Mapping[str, str], y: float) -> str:
    parts, x = [], LEFT
    for name, colour in colours.items():
        parts.append(
            f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 17}" y="{y + 10}">{name}</text>'
        )
        x += 36 + 7 * len(name)
    return "\n".join(parts)
