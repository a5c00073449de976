"""What a simulated day came to: seconds in each condition, logins per minute, recoveries."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from scripts.simulation.faults import DAY, Span

MINUTES = 1440
_SUMS = (
    "episodes",
    "recovered",
    "needed_person",
    "unpaired",
    "unpaired_by_outage",
    "in_vain",
    "hammered",
    "passes",
)


@dataclass(slots=True)
class Curve:
    """How many instances are in a condition, per minute, from intervals added in any order."""

    edge: list[float] = field(default_factory=lambda: [0.0] * (MINUTES + 1))
    step: list[int] = field(default_factory=lambda: [0] * (MINUTES + 2))

    def add(self, begin: float, end: float) -> None:
        end = min(end, DAY)
        if end <= begin:
            return
        first, last = int(begin // 60), int(end // 60)
        if first == last:
            self.edge[first] += (end - begin) / 60
            return
        self.edge[first] += first + 1 - begin / 60
        self.edge[last] += end / 60 - last
        self.step[first + 1] += 1
        self.step[last] -= 1

    def join(self, other: "Curve") -> None:
        self.edge = [a + b for a, b in zip(self.edge, other.edge, strict=True)]
        self.step = [a + b for a, b in zip(self.step, other.step, strict=True)]

    def per_minute(self) -> list[float]:
        values, level = [], 0
        for minute in range(MINUTES):
            level += self.step[minute]
            values.append(level + self.edge[minute])
        return values


@dataclass(slots=True)
class Tally:
    """One way of supervising, one day, all machines."""

    instances: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Instance-seconds by condition."""
    curves: defaultdict[str, Curve] = field(default_factory=lambda: defaultdict(Curve))
    """How many instances are in each condition."""
    restarts: list[int] = field(default_factory=lambda: [0] * MINUTES)
    """New workers, and restarts on backends, per minute."""
    logins: list[int] = field(default_factory=lambda: [0] * MINUTES)
    worst_minute: int = 0
    """The most logins of one machine in one minute."""
    episodes: int = 0
    """Times that an instance went down for a cause that needs no person."""
    recovered: int = 0
    needed_person: int = 0
    back_after: list[float] = field(default_factory=list)
    unpaired: int = 0
    """Live pairings that the supervising itself gave up."""
    unpaired_by_outage: int = 0
    """... of sessions whose backend was away meanwhile."""
    in_vain: int = 0
    """Requests to a backend that was away."""
    hammered: int = 0
    """Logins of an account that WhatsApp had logged out or banned."""
    passes: int = 0

    def book(self, condition: str, begin: float, end: float, away: Iterable[Span]) -> None:
        """Time in one condition; `away` are the parts in which no agent could have ended it."""
        for span in away:
            self._book(condition, begin, span.begin)
            self._book("out of reach", span.begin, span.end)
            begin = span.end
        self._book(condition, begin, end)

    def _book(self, condition: str, begin: float, end: float) -> None:
        if end > begin:
            self.seconds[condition] += end - begin
            self.curves[condition].add(begin, end)

    def add(self, other: "Tally") -> None:
        self.instances += other.instances
        for condition, seconds in other.seconds.items():
            self.seconds[condition] += seconds
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.back_after += other.back_after
        self.worst_minute = max(self.worst_minute, other.worst_minute)
        self.logins = [a + b for a, b in zip(self.logins, other.logins, strict=True)]
        self.restarts = [a + b for a, b in zip(self.restarts, other.restarts, strict=True)]
        for condition, curve in other.curves.items():
            self.curves[condition].join(curve)

    def share(self, condition: str) -> float:
        return self.seconds[condition] / (self.instances * DAY)

    @property
    def recovered_share(self) -> float:
        return self.recovered / self.episodes if self.episodes else 1.0

    def back_within(self, share: float) -> float:
        """Seconds within which such a share of the recoveries was done."""
        ordered = sorted(self.back_after)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
