"""The table as a picture: a bar for each system, for the measures that more than ours have."""

from collections.abc import Iterator
from html import escape

from scripts.benches.report import OURS, Report, Row, shown

_BAR, _GAP, _LEFT, _WIDE, _RIGHT = 14, 26, 120, 420, 110
_OURS, _THEIRS, _GOAL = "#1a7f5a", "#9aa5b1", "#c0392b"


def draw(report: Report) -> str:
    """An SVG. Bars of one measure share a scale; no two measures do."""
    parts, top = [], 40
    for row in report.rows:
        if len(row.figures) > 1 and OURS in row.figures:
            parts += _measure(row, report.names, top)
            top += _GAP + _BAR * len(row.figures) + 12
    width = _LEFT + _WIDE + _RIGHT
    title = f"{report.subject}, {report.began:%Y-%m-%d}: shorter is better, red is the goal"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}"'
        f' viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="11">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f"{_text(10, 20, title, weight='bold')}{''.join(parts)}</svg>\n"
    )


def _measure(row: Row, names: list[str], top: int) -> Iterator[str]:
    medians = {name: found for name in names if (found := row.median(name)) is not None}
    limit = row.goal.limit if row.goal is not None else None
    longest = max(*medians.values(), limit or 0.0) or 1.0
    yield _text(10, top + 12, f"{row.measure}, {row.unit}" if row.unit else row.measure)
    for place, (name, value) in enumerate(medians.items()):
        y, length = top + _GAP - 8 + place * _BAR, _WIDE * value / longest
        color = _OURS if name == OURS else _THEIRS
        yield (
            f'<rect x="{_LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{_BAR - 3}"'
            f' fill="{color}"/>\n'
        )
        yield _text(_LEFT - 6, y + 9, name, anchor="end")
        yield _text(_LEFT + length + 6, y + 9, shown(value))
    if limit is not None:
        x, y = _LEFT + _WIDE * limit / longest, top + _GAP - 10
        end = y + _BAR * len(medians)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{end}" stroke="{_GOAL}"/>\n'


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(words)}</text>\n"
    )
