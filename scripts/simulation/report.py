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
            [seconds_text(t.back_within(part)) for t in tallies.values()],
        )
        for words, part in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    ]


def table(tallies: Mapping[str, Tally]) -> str:
    rows = [[name, *cells] for name, cells in rows_of(tallies)]
    return grid(["", *tallies], rows, markdown=False)


def markdown(tallies: Mapping[str, Tally]) -> str:
    rows = [[name, *cells] for name, cells in rows_of(tallies)]
    return grid(["", *tallies], rows, markdown=True)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """A table; the first column names its rows."""
    if markdown:
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines[0] = lines[0].replace("|  |", "| |", 1)
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
    spaces = [max(len(row[number]) for row in (head, *rows)) for number in range(len(head))]
    return "\n".join(
        f"{row[0]:<{spaces[0]}}"
        + "".join(f"  {cell:>{wide}}" for cell, wide in zip(row[1:], spaces[1:], strict=True))
        for row in (head, *rows)
    )


def seconds_text(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
