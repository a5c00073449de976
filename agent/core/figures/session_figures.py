"""The figures of a session: each needs a row here and the line that measures it.

The worker's answers, the instance's JSON and /metrics are made from these rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.reasons import Permanence, reason_of, reasons_table
from agent.core.recovery.repair import Goal


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that each answer of a worker to a probe has under this name; a gauge."""

    name: str
    metric: str
    meaning: str
    most: float
    """A larger, negative or non-numeric value is left out."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often something happened to a session, by word; a counter with the word as label."""

    name: str
    metric: str
    label: str
    words: tuple[str, ...]
    """Shown from the start, at zero."""
    meaning: str
    shown: str = ""
    """Its key in the instance's JSON; "" = its name."""
    other: bool = False
    """True: words outside of `words` may come; they are one line, `other`."""


FIGURES = (
    Figure("open_fds", "wa_session_open_fds", "Open files of the session's processes.", 1 << 30),
)

COUNTS = (
    Count(
        "reconnects",
        "wa_session_reconnects_total",
        "reason",
        tuple(
            code
            for code, *_ in reasons_table()
            if reason_of(code).permanence not in (Permanence.NEVER, Permanence.WAIT_FOR_PERSON)
        ),
        "Connections regained, by the reason of the loss.",
        shown="reconnects_by_reason",
        other=True,
    ),
    Count(
        "restarts",
        "wa_session_restarts_total",
        "reason",
        ("watchdog", "oom", "crash", "agent", "operator"),
        "Restarts of the worker by cause.",
        shown="restarts_by_reason",
    ),
    Count(
        "key_regenerations",
        "wa_session_key_regenerations_total",
        "result",
        ("done", "failed"),
        "Regenerations of peers' keys by result.",
    ),
    Count(
        "cleanups",
        "wa_session_cleanups_total",
        "kind",
        tuple(goal.value for goal in Goal),
        "Sessions retired for a new QR code, by the goal of the repair.",
    ),
)


NO_COUNTS: Mapping[str, Mapping[str, int]] = {row.name: {} for row in COUNTS}


def read_figures(answer: Mapping[str, Any]) -> dict[str, float]:
    """The figures in an answer to a probe; impossible values are left out."""
    figures = {}
    for row in FIGURES:
        value = answer.get(row.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < row.most:
            figures[row.name] = value
    return figures


def with_zeros(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Each count by name; where all words are known, each word from the start."""
    return {
        row.name: {**({} if row.other else dict.fromkeys(row.words, 0)), **counts[row.name]}
        for row in COUNTS
    }
