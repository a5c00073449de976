"""How long things took, as histograms: how many up to each bound, and the sum. One set for all
sessions together, for one per session would be ten series times a thousand."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.core.model import InstanceId
from agent.core.recovery.repair import Ending, Goal, Repair
from agent.core.words import ConnectionStatus

RECONNECT_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Bounds of the time from a lost to the next connection."""


@dataclass(slots=True)
class Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    """One more than there are bounds: the last counts what took longer."""
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, max(seconds, 0.0))] += 1
        self.total += max(seconds, 0.0)


# Counts of checks and repairs: one value per agent, added to and never reset.


_HEALED = (Ending.RECOVERED, Ending.CLEANED)
_UNHEALED = (Ending.GAVE_UP, Ending.NEEDS_PERSON)


@dataclass(frozen=True, slots=True)
class RepairStatistics:
    checked: int = 0
    check_seconds: float = 0.0
    repaired: int = 0
    cleaned: int = 0
    failed: int = 0
    repair_seconds: float = 0.0
    """Of the repairs that healed: from the begin until what helped was done."""
    asked: int = 0
    """Repairs that an operator asked for, or joined."""
    needed_person: int = 0
    """Repairs that ended with something only a person can do."""
    since_wall: float = 0.0
    """When the first of them was counted; 0 = not known."""

    @property
    def interventions(self) -> Mapping[str, int]:
        return {"asked": self.asked, "needed": self.needed_person}

    @property
    def mean_check_seconds(self) -> float | None:
        return self.check_seconds / self.checked if self.checked else None

    @property
    def mean_time_to_repair(self) -> float | None:
        healed = self.repaired + self.cleaned
        return self.repair_seconds / healed if healed else None

    @property
    def success_rate(self) -> float | None:
        healed = self.repaired + self.cleaned
        return healed / (healed + self.failed) if healed + self.failed else None


def note_check(statistics: RepairStatistics, seconds: float) -> RepairStatistics:
    return replace(
        statistics, checked=statistics.checked + 1, check_seconds=statistics.check_seconds + seconds
    )


def note_repair(statistics: RepairStatistics, repair: Repair) -> RepairStatistics:
    """Count a repair that ended; without a step, or no longer wanted, it repaired nothing."""
    statistics = replace(
        statistics,
        asked=statistics.asked + (repair.goal is not Goal.HEAL),
        needed_person=statistics.needed_person + (repair.ending is Ending.NEEDS_PERSON),
    )
    if repair.ending in _UNHEALED:
        return replace(statistics, failed=statistics.failed + 1)
    if repair.ending not in _HEALED:
        return statistics
    cleaned = repair.ending is Ending.CLEANED
    return replace(
        statistics,
        repaired=statistics.repaired + (not cleaned),
        cleaned=statistics.cleaned + cleaned,
        repair_seconds=statistics.repair_seconds + repair.seconds,
    )


COUNTS: Mapping[str, tuple[str, ...]] = {
    "reconnects": (),
    "restarts": ("watchdog", "oom", "crash", "agent", "operator"),
    "key_regenerations": ("done", "failed"),
    "cleanups": tuple(goal.value for goal in Goal),
}
"""How often something happened to a session, by word; these words are there from the start, at
zero. Connections regained by the reason of the loss, restarts of the worker by cause, new keys with
contacts, sessions retired for a new QR code by the goal of the repair."""


# How long a session has been in each status, by a clock that never jumps: a counter that shrank
# with the wall clock would look to Prometheus like one that began at 0.


@dataclass(frozen=True, slots=True)
class StatusTime:
    """`spent` has the seconds of each status until `entered`; since then it is `status`."""

    status: ConnectionStatus = ConnectionStatus.DISCONNECTED
    entered: float = 0.0
    """A moment of the boot clock."""
    spent: Mapping[ConnectionStatus, float] = field(default_factory=dict)

    def enter(self, status: ConnectionStatus, now: float) -> "StatusTime":
        if status is self.status:
            return self
        return StatusTime(status, now, self.totals(now))

    def totals(self, now: float) -> dict[ConnectionStatus, float]:
        since = max(now - self.entered, 0.0)
        return {**self.spent, self.status: self.spent.get(self.status, 0.0) + since}


# Memory and messages of each instance over the last hour, day, week and month: the charts of the
# dashboard. Arrays, not objects: a thousand instances take two megabytes and a half.


POINTS = 60
LATEST = "latest"
REACHES = {LATEST: 3600.0, "day": 86_400.0, "week": 7 * 86_400.0, "month": 30 * 86_400.0}
"""Seconds."""
_KIB = 1024
_MOST = 0xFFFF_FFFF
_EARLY = 0.5
"""Seconds that a point may come before its time: the clock is corrected now and then."""

Seen = Iterable[tuple[InstanceId, int | None, int]]
"""Of each instance its memory, and its messages since the agent began to count."""


class Trend:
    """One instance's last points, oldest first."""

    __slots__ = ("_counted", "_memory", "_messages")

    def __init__(
        self, memory: Iterable[int] = (), messages: Iterable[int] = (), counted: int | None = None
    ) -> None:
        self._memory = array("I", memory)
        """KiB; 0 = not known then."""
        self._messages = array("I", messages)
        self._counted = counted
        """As of the newest point; None: the first point measures from itself on."""

    def note(self, memory_bytes: int | None, counted: int) -> None:
        """`counted`: messages since the agent began; a smaller number was reset to 0 before."""
        before = counted if self._counted is None else self._counted
        self._counted = counted
        _push(self._memory, (memory_bytes or 0) // _KIB)
        _push(self._messages, counted - before if counted >= before else counted)

    def miss(self, points: int) -> None:
        """So many moments passed without a look."""
        for _ in range(points):
            _push(self._memory, 0)
            _push(self._messages, 0)

    def memory(self) -> list[int | None]:
        """Bytes."""
        return [kib * _KIB or None for kib in self._memory]

    def messages(self) -> list[int]:
        """Messages in and out between two points."""
        return self._messages.tolist()

    def packed(self) -> list[Any]:
        """For JSON; `read_trend` reads it."""
        return [self._memory.tolist(), self._messages.tolist(), self._counted]


def read_trend(raw: Any) -> Trend:
    """ValueError or TypeError where it is not what `packed` made."""
    memory, messages, counted = raw
    if not len(memory) == len(messages) <= POINTS or type(counted) is not int:
        raise ValueError("it is no line")
    try:
        return Trend(memory, messages, counted)
    except OverflowError as error:
        raise ValueError("a point is out of range") from error


class Trends:
    """All instances' lines of one reach; they share their moments, `step` seconds apart."""

    def __init__(self, reach: float) -> None:
        self.step = reach / POINTS
        self.noted_wall: float | None = None
        """When the newest points were taken."""
        self._known: dict[InstanceId, Trend] = {}

    def is_due(self, now_wall: float) -> bool:
        """Also where the clock was set back."""
        since = None if self.noted_wall is None else now_wall - self.noted_wall
        return since is None or not 0 <= since < self.step - _EARLY

    def note(self, seen: Seen, now_wall: float) -> None:
        """Memory and messages of all instances; deleted ones are forgotten."""
        before, self._known = self._known, {}
        missed = self._missed(now_wall)
        for id, memory_bytes, counted in seen:
            trend = self._known[id] = before.get(id) or Trend()
            trend.miss(missed)
            trend.note(memory_bytes, counted)
        self.noted_wall = now_wall

    def _missed(self, now_wall: float) -> int:
        """Moments since the last one, of an agent that did not run or a machine that slept."""
        since = 0.0 if self.noted_wall is None else now_wall - self.noted_wall
        return min(max(round(since / self.step) - 1, 0), POINTS)

    def of(self, id: InstanceId) -> Trend | None:
        return self._known.get(id)

    def bring_back(self, id: InstanceId, trend: Trend, noted_wall: float) -> None:
        """What an earlier agent noted; its instances shared that moment."""
        self._known[id] = trend
        self.noted_wall = noted_wall


AllTrends = Mapping[str, Trends]
"""By the word for their reach, the latest ones first."""


def open_trends() -> AllTrends:
    return {word: Trends(reach) for word, reach in REACHES.items()}


def note_due(trends: AllTrends, seen: Callable[[], Seen], now_wall: float) -> None:
    for one in trends.values():
        if one.is_due(now_wall):
            one.note(seen(), now_wall)


def _push(points: "array[int]", value: int) -> None:
    points.append(min(value, _MOST))
    if len(points) > POINTS:
        del points[0]
