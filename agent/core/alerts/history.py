"""The past of a series as a step function: only changes are kept, so that a thousand quiet counters
cost almost nothing. The sums follow Prometheus: a counter that falls was reset."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

_EVERY = 60.0
"""Seconds between the points that a line is drawn through."""


class HistorySteps:
    """Values by the moments at which they began to hold."""

    __slots__ = ("_at", "_values", "noted")

    def __init__(self) -> None:
        # Most series never change: one pair of values; arrays are for the others.
        self._at: array[float] | tuple[float, ...] = ()
        self._values: array[float] | tuple[float, ...] = ()
        self.noted = 0
        """How many values so far, forgotten ones too."""

    def note(self, at: float, value: float) -> None:
        """A clock that went back is taken as standing still."""
        if not self._at:
            self._at, self._values = (at,), (value,)
            self.noted = 1
        elif value != self._values[-1]:
            moments, values = self._arrays()
            moments.append(max(at, moments[-1]))
            values.append(value)
            self.noted += 1

    def forget(self, before: float) -> bool:
        """Drop what no window reaches any more, but for the last of it. True: several values are
        left."""
        if len(self._at) < 2 or self._at[1] > before:
            return len(self._at) > 1
        keep = bisect_right(self._at, before) - 1
        if keep > 0:
            moments, values = self._arrays()
            del moments[:keep]
            del values[:keep]
        return len(self._at) > 1

    def _arrays(self) -> tuple["array[float]", "array[float]"]:
        if not isinstance(self._at, array) or not isinstance(self._values, array):
            self._at, self._values = array("d", self._at), array("d", self._values)
        return self._at, self._values

    def __len__(self) -> int:
        return len(self._at)

    def _between(self, start: float, end: float) -> Iterator[float]:
        """The value at the start, if there was one, and all later ones until the end."""
        first = max(bisect_right(self._at, start) - 1, 0)
        return iter(self._values[first : bisect_right(self._at, end)])

    def _still(self, start: float, end: float) -> bool:
        """Whether the window has one value only, as it nearly always has."""
        at = self._at
        return bool(at) and (at[-1] <= start or (len(at) == 1 and at[0] <= end))

    def holds_until(self, start: float, end: float) -> tuple[float, float]:
        """Where start and end of a window first see other values, if none is noted meanwhile."""
        later, last = max(bisect_right(self._at, start), 1), bisect_right(self._at, end)
        count = len(self._at)
        return (
            self._at[later] if later < count else math.inf,
            self._at[last] if last < count else math.inf,
        )

    def increase(self, start: float, end: float) -> float | None:
        if self._still(start, end):
            return 0.0
        values = self._between(start, end)
        before = next(values, None)
        if before is None:
            return None
        total = 0.0
        for value in values:
            total += value - before if value >= before else value
            before = value
        return total

    def changes(self, start: float, end: float) -> float | None:
        if self._still(start, end):
            return 0.0
        values = sum(1 for _ in self._between(start, end))
        return float(values - 1) if values else None

    def least(self, start: float, end: float) -> float | None:
        if self._still(start, end):
            return self._values[-1]
        return min(self._between(start, end), default=None)

    def greatest(self, start: float, end: float) -> float | None:
        if self._still(start, end):
            return self._values[-1]
        return max(self._between(start, end), default=None)

    def mean(self, start: float, end: float) -> float | None:
        """Each value by how long it held; from the first reading on."""
        if self._still(start, end):
            return self._values[-1]
        first = max(bisect_right(self._at, start) - 1, 0)
        last = bisect_right(self._at, end)
        if first >= last:
            return None
        moments = [max(self._at[first], start), *self._at[first + 1 : last], end]
        held = [after - before for before, after in pairwise(moments)]
        total = math.fsum(held)
        if total <= 0:
            return self._values[last - 1]
        values = self._values[first:last]
        return math.fsum(v * h for v, h in zip(values, held, strict=True)) / total

    def present(self, start: float, end: float) -> float | None:
        """1 when it had a value then: a line through less of the past proves little."""
        del start
        return 1.0 if self._at and self._at[0] <= end else None

    def line(self, start: float, end: float, ahead: float) -> float | None:
        """Where a straight line through the window is `ahead` seconds after its end."""
        if not self._at or self._at[0] >= end:
            return None
        begin = max(start, self._at[0])
        count = max(int((end - begin) // _EVERY), 2)
        moments = [end - (end - begin) * part / count for part in range(count + 1)]
        values = [self._values[bisect_right(self._at, at) - 1] for at in moments]
        mean_at, mean = sum(moments) / len(moments), sum(values) / len(values)
        spread = sum((at - mean_at) ** 2 for at in moments)
        slope = sum(
            (at - mean_at) * (value - mean) for at, value in zip(moments, values, strict=True)
        )
        return mean + slope / spread * (end + ahead - mean_at)
