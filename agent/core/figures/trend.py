"""Memory and messages of each instance over the last hour, day, week and month: the charts of the
dashboard. Arrays, not objects: a thousand instances take two megabytes and a half."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.core.model import InstanceId

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
