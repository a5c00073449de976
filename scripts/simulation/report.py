"""The day's table, as text for a terminal or as Markdown for a page."""

from collections.abc import Mapping, Sequence

from scripts.simulation.tally import Tally

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
Rows = Sequence[tuple[str, Sequence[str]]]


def rows_of(tallies: Mapping[str, Tally]) -> Rows:
    every = tallies.values()
    return [
        *((f"time {one}", [f"{tally.share(one):.3%}" for tally in every]) for one in CONDITIONS),
        ("went down (no person needed)", [f"{t.episodes:,}" for t in every]),
        ("came back without a person", [f"{t.recovered_share:.2%}" for t in every]),
        *_back_rows(tallies),
        ("needed a person", [f"{t.needed_person:,}" for t in every]),
        ("live pairings given up", [f"{t.unpaired:,}" for t in every]),
        ("... where a backend was away", [f"{t.unpaired_by_outage:,}" for t in every]),
        ("restarts in the day", [f"{sum(t.restarts):,}" for t in every]),
        ("restarts in the worst minute", [f"{max(t.restarts):,}" for t in every]),
        ("logins in the day", [f"{sum(t.logins):,}" for t in every]),
        ("logins in the worst minute", [f"{max(t.logins):,}" for t in every]),
        ("... from one address", [f"{t.worst_minute:,}" for t in every]),
        ("logins while banned or out", [f"{t.hammered:,}" for t in every]),
        ("requests to a backend that was away", [f"{t.in_vain:,}" for t in every]),
    ]


def _back_rows(tallies: Mapping[str, Tally]) -> Rows:
    """How soon a session was back once it could be: outages of everything taken off."""
    return [
        (
            f"back once it could be, {words}",
            [_seconds(t.back_within(part)) for t in tallies.values()],
        )
        for words, part in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    ]


def table(tallies: Mapping[str, Tally]) -> str:
    head, rows = list(tallies), rows_of(tallies)
    wide = max(len(name) for name, _ in rows)
    columns = [
        max(len(name), *(len(cells[number]) for _, cells in rows))
        for number, name in enumerate(head)
    ]
    return "\n".join(
        f"{name:<{wide}}"
        + "".join(f"  {cell:>{space}}" for cell, space in zip(cells, columns, strict=True))
        for name, cells in (("", head), *rows)
    )


def markdown(tallies: Mapping[str, Tally]) -> str:
    head = ["| | " + " | ".join(tallies) + " |", "|---|" + "---:|" * len(tallies)]
    rows = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows_of(tallies)]
    return "\n".join([*head, *rows])


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
