"""The day's table as text, and its curves as an SVG."""

import math
from collections.abc import Mapping, Sequence

from scripts.simulation.faults import DAY
from scripts.simulation.tally import MINUTES, Tally

COLOURS = ("#16794a", "#c4620a", "#9aa0a6")
LEFT, TOP, WIDTH, HEIGHT = 70, 40, 900, 200
CONDITIONS = (
    "serving",
    "keys failing",
    "out of reach",
    "starting",
    "down",
    "stuck",
    "zombie",
    "banned for a time",
    "needs a person",
)


def table(tallies: Mapping[str, Tally]) -> str:
    rows: list[tuple[str, list[str]]] = [
        (f"time {condition}", [f"{tally.share(condition):.3%}" for tally in tallies.values()])
        for condition in CONDITIONS
    ]
    rows += [
        ("went down (no person needed)", [f"{t.episodes:,}" for t in tallies.values()]),
        ("came back without a person", [f"{t.recovered_share:.2%}" for t in tallies.values()]),
        *_back_rows(tallies),
        ("needed a person", [f"{t.needed_person:,}" for t in tallies.values()]),
        ("live pairings given up", [f"{t.unpaired:,}" for t in tallies.values()]),
        ("logins in the day", [f"{sum(t.logins):,}" for t in tallies.values()]),
        ("logins in the worst minute", [f"{max(t.logins):,}" for t in tallies.values()]),
        ("... of one machine", [f"{t.worst_minute:,}" for t in tallies.values()]),
        ("logins while banned or out", [f"{t.hammered:,}" for t in tallies.values()]),
    ]
    return _aligned(["", *tallies], rows)


def _back_rows(tallies: Mapping[str, Tally]) -> list[tuple[str, list[str]]]:
    """How soon a session was back once it could be: outages of everything taken off."""
    return [
        (
            f"back once it could be, {words}",
            [_seconds(t.back_within(part)) for t in tallies.values()],
        )
        for words, part in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    ]


def _aligned(head: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    wide = max(len(name) for name, _ in rows)
    columns = [
        max(len(head[n + 1]), *(len(row[1][n]) for row in rows)) for n in range(len(head) - 1)
    ]
    lines = [" " * wide + "".join(f"  {head[n + 1]:>{columns[n]}}" for n in range(len(columns)))]
    lines += [
        f"{name:<{wide}}" + "".join(f"  {cell:>{columns[n]}}" for n, cell in enumerate(cells))
        for name, cells in rows
    ]
    return "\n".join(lines)


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def plot(tallies: Mapping[str, Tally]) -> str:
    """Two panels over one day: the share that serves, and logins per minute (logarithmic)."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} 560"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{LEFT + WIDTH + 20}" height="560" fill="#ffffff"/>',
        _legend(tallies),
    ]
    serving = {
        name: [1 - value / tally.instances for value in tally.down.per_minute()]
        for name, tally in tallies.items()
    }
    parts += _panel(serving, TOP, "share not waiting to come back")
    most = max(max(tally.logins) for tally in tallies.values())
    decades = max(len(str(most)), 1)
    logins = {
        name: [_log(value) / decades for value in tally.logins] for name, tally in tallies.items()
    }
    marks = [(n / decades, f"{10**n:,}") for n in range(decades + 1)]
    parts += _panel(logins, TOP + HEIGHT + 60, "logins per minute, all machines", marks)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _log(value: int) -> float:
    return math.log10(value) if value > 1 else 0.0


def _panel(
    curves: Mapping[str, Sequence[float]],
    top: float,
    title: str,
    marks: Sequence[tuple[float, str]] = ((0, "0 %"), (0.5, "50 %"), (1, "100 %")),
) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{title}</text>']
    for share, label in marks:
        y = top + HEIGHT * (1 - share)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#e0e0e0"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for hour in range(0, 25, 3):
        x = LEFT + WIDTH * hour * 3600 / DAY
        parts.append(
            f'<text x="{x:.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{hour}:00</text>'
        )
    # The agent's own curve last: on top.
    for colour, values in reversed(list(zip(COLOURS, curves.values(), strict=False))):
        points = " ".join(
            f"{LEFT + WIDTH * minute / MINUTES:.1f},{top + HEIGHT * (1 - value):.1f}"
            for minute, value in enumerate(values)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    return parts


def _legend(tallies: Mapping[str, Tally]) -> str:
    parts, x = [], LEFT
    for colour, name in zip(COLOURS, tallies, strict=False):
        parts.append(
            f'<rect x="{x}" y="538" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 18}" y="548">{name}</text>'
        )
        x += 40 + 8 * len(name)
    return "\n".join(parts)
