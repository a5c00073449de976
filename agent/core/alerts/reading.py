"""The leaves of a condition: what is read of one series, now or over its last seconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core.alerts.history import HistorySteps
from agent.core.alerts.results import Window
from agent.core.alerts.source import Key, Series, Sight, Vector

_FUNCTIONS: Mapping[str, Callable[[HistorySteps, float, float], float | None]] = {
    "increase": HistorySteps.increase,
    "changes": HistorySteps.changes,
    "min_over_time": HistorySteps.least,
    "max_over_time": HistorySteps.greatest,
    "avg_over_time": HistorySteps.mean,
    "present_over_time": HistorySteps.present,
}
_OF_ONE_VALUE = {"increase": 0.0, "changes": 0.0, "present_over_time": 1.0}
"""The result for a series that never changed; for the other functions it is that value."""
_OF_TIME = frozenset({"avg_over_time"})
"""What changes with time while no value enters or leaves the window."""


@dataclass(frozen=True, slots=True)
class Over:
    """A function of a series' last so many seconds."""

    function: str
    series: Series
    seconds: float
    offset: float = 0.0
    exact: bool = False
    """An increase that is compared with a number of things that happened.

    Prometheus' own `increase` draws the samples out to the ends of the window, so that two
    restarts are 2.002. The last value less the first is exact, as long as the counter did not
    begin at 0 in between.
    """

    @property
    def labels(self) -> frozenset[str]:
        return self.series.labels

    def promql(self) -> str:
        offset = f" offset {duration(self.offset)}" if self.offset else ""
        window = f"{self.series.selector()}[{duration(self.seconds)}]{offset}"
        if not self.exact:
            return self.series.over_summed(f"{self.function}({window})")
        return self.series.over_summed(
            f"(max_over_time({window}) - min_over_time({window})"
            f" unless resets({window}) > 0 or floor(increase({window})))"
        )

    def vector(self, sight: Sight) -> Vector:
        return sight.results.measured(self, sight)

    def measure(self, sight: Sight) -> Vector:
        past = sight.history.past(self.series)
        steps_of: Mapping[Key, HistorySteps] = past.steps
        values: Vector = {}
        if not self.offset:
            # Most series have one value: their result is known without a look at each.
            constant = _OF_ONE_VALUE.get(self.function)
            last = past.last_values
            values = dict(last) if constant is None else dict.fromkeys(last, constant)
            steps_of = past.moving
        windows = sight.results.windows(self, steps_of)
        start, end = sight.now - self.offset - self.seconds, sight.now - self.offset
        for key, steps in steps_of.items():
            window = windows.get(key)
            if window is None or not window.holds(steps, start, end):
                window = windows[key] = self._measure_one(steps, start, end)
            if window.value is not None:
                values[key] = window.value
            else:
                values.pop(key, None)
        return values

    def _measure_one(self, steps: HistorySteps, start: float, end: float) -> Window:
        value = _FUNCTIONS[self.function](steps, start, end)
        # A mean weighs by time: it holds for this moment only.
        until = (start, end) if self.function in _OF_TIME else steps.holds_until(start, end)
        return Window(steps, steps.noted, end, *until, value)

    @property
    def reach(self) -> float:
        """How far it looks back."""
        return self.seconds + self.offset


@dataclass(frozen=True, slots=True)
class Predict:
    """Where the series will be `ahead` seconds from now if it goes on as in the last seconds."""

    series: Series
    seconds: float
    ahead: float

    @property
    def labels(self) -> frozenset[str]:
        return self.series.labels

    def promql(self) -> str:
        window = f"{self.series.selector()}[{duration(self.seconds)}]"
        return f"predict_linear({window}, {self.ahead:.12g})"

    def vector(self, sight: Sight) -> Vector:
        start = sight.now - self.seconds
        lines = {
            key: steps.line(start, sight.now, self.ahead)
            for key, steps in sight.history.of(self.series).items()
        }
        return {key: value for key, value in lines.items() if value is not None}

    @property
    def reach(self) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class Age:
    """How long ago the moment is that the series has as its value."""

    series: Series

    @property
    def labels(self) -> frozenset[str]:
        return self.series.labels

    def promql(self) -> str:
        return f"(time() - {self.series.selector()})"

    def vector(self, sight: Sight) -> Vector:
        return {key: sight.now_wall - at for key, at in self.series.vector(sight).items()}


@dataclass(frozen=True, slots=True)
class Absent:
    series: Series

    @property
    def labels(self) -> frozenset[str]:
        return frozenset()

    def promql(self) -> str:
        return f"absent({self.series.selector()})"

    def vector(self, sight: Sight) -> Vector:
        return {} if self.series.vector(sight) else {(): 1.0}


@dataclass(frozen=True, slots=True)
class Always:
    @property
    def labels(self) -> frozenset[str]:
        return frozenset()

    def promql(self) -> str:
        return "vector(1)"

    def vector(self, sight: Sight) -> Vector:
        return {(): 1.0}


def duration(seconds: float) -> str:
    """As Prometheus writes it, in its largest whole unit."""
    milliseconds = round(seconds * 1000)
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"
