"""How long things took, as histograms: how many up to each bound, and the sum. One set for all
sessions together, for one per session would be ten series times a thousand."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

BOUNDS: Mapping[str, tuple[float, ...]] = {
    "reconnect": (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600),
    "response": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    "acknowledgement": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    "repair": (1, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600),
}
"""Seconds. From lost to connected again; a probe's answer; from sent to acknowledged; a repair."""


@dataclass(slots=True)
class Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    """One more than there are bounds: the last counts what took longer."""
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Durations:
    """Counted since the agent's start."""

    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram(bounds) for name, bounds in BOUNDS.items()}
    )

    def note(self, what: str, seconds: float) -> None:
        self.histograms[what].note(max(seconds, 0.0))


MOST_AWAITED = 32
MOST_EARLY = 8
"""Per session; there may be a thousand."""


@dataclass(slots=True)
class Acknowledgements:
    """Matches the sending of a message with its acknowledgement, whichever is reported first. Drops
    the oldest: a phone's own messages are acknowledged, too."""

    sent: dict[str, float] = field(default_factory=dict)
    early: dict[str, float] = field(default_factory=dict)

    def note_sent(self, id: str, at: float) -> float | None:
        """Seconds, when its acknowledgement is here already."""
        if (acknowledged := self.early.pop(id, None)) is not None:
            return acknowledged - at
        _put(self.sent, id, at, MOST_AWAITED)
        return None

    def note_acknowledged(self, id: str, at: float) -> float | None:
        """Seconds, at the first acknowledgement of a message that the session sent."""
        if (sent := self.sent.pop(id, None)) is not None:
            return at - sent
        _put(self.early, id, at, MOST_EARLY)
        return None


def _put(kept: dict[str, float], id: str, at: float, most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[id] = at
