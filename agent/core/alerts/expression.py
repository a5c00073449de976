"""Conditions that can be written as PromQL and asked of the agent's own views alike.

A condition is a small tree; its result is a value for each set of labels, and an empty
result means that nothing is wrong. The words are Prometheus' own.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.alerts.history import Steps
from agent.core.model import InstanceId
from agent.core.view import InstanceView

Key = tuple[tuple[str, str], ...]
"""The labels of one result, sorted; () for the machine's own."""
Vector = dict[Key, float]

_LABELS = re.compile(r'(\w+)=~?"')
_TARGET = frozenset({"job"})
"""Labels that Prometheus gives to all series of a machine alike."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The agent's and the machine's figures that no session's view holds."""

    memory_total: float = 1.0
    memory_used: float = 0.0
    cpu_ratio: float = 0.0
    disk_size: float | None = None
    disk_available: float | None = None
    open_fds: float = 0.0
    max_fds: float = 1.0
    started_wall: float = 0.0
    requests: float = 0.0
    requests_failed: float = 0.0
    incidents: Mapping[str, bool] = field(default_factory=dict)
    """By engine; one that never had any may be missing."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric, as it is named on /metrics and as the agent reads it itself."""

    metric: str
    matcher: str = ""
    of_session: Callable[[InstanceView], float | None] | None = None
    of_agent: Callable[[Figures], Vector] | None = None
    summed: tuple[str, ...] = ()
    """Labels over which it is added up."""

    @property
    def labels(self) -> frozenset[str]:
        """What its series carry beside the session's and the machine's own labels."""
        return frozenset(_LABELS.findall(self.matcher)) - frozenset(self.summed) - _TARGET

    def selector(self) -> str:
        return f"{self.metric}{{{self.matcher}}}" if self.matcher else self.metric

    def promql(self) -> str:
        return self.over_summed(self.selector())

    def over_summed(self, text: str) -> str:
        return f"sum without ({', '.join(self.summed)}) ({text})" if self.summed else text

    def vector(self, sight: "Sight") -> Vector:
        return self.read(sight.views, sight.figures)

    def read(self, views: Mapping[InstanceId, InstanceView], figures: Figures) -> Vector:
        if self.of_agent is not None:
            return self.of_agent(figures)
        assert self.of_session is not None
        read = self.of_session
        found: Vector = {}
        for id, view in views.items():
            value = read(view)
            if value is not None:
                found[(("session", str(id)),)] = value
        return found

    def windows(self) -> Iterator[tuple["Series", float]]:
        return iter(())


class History:
    """The past of every series that a condition looks back at."""

    def __init__(self, expressions: Iterator["Expression"] | list["Expression"]) -> None:
        self._windows: dict[Series, float] = {}
        for expression in expressions:
            for series, seconds in expression.windows():
                self._windows[series] = max(seconds, self._windows.get(series, 0.0))
        self._past: dict[Series, dict[Key, Steps]] = {series: {} for series in self._windows}

    def note(
        self, views: Mapping[InstanceId, InstanceView], figures: Figures, now: float
    ) -> Iterator[Series]:
        """One series after the other, so that a caller may let others run in between."""
        for series, seconds in self._windows.items():
            past, found = self._past[series], series.read(views, figures)
            for key, value in found.items():
                if (steps := past.get(key)) is None:
                    steps = past[key] = Steps()
                steps.note(now, value)
                steps.forget(now - seconds)
            if len(past) > len(found):
                gone = [key for key in past if key not in found and not _is_there(key, views)]
                for key in gone:
                    del past[key]
            yield series

    def of(self, series: Series) -> Mapping[Key, Steps]:
        return self._past[series]

    def before(self, series: Series, key: Key, points: list[tuple[float, float]]) -> None:
        """Take over what was so before this history began; oldest first."""
        if series in self._past:
            steps = self._past[series].setdefault(key, Steps())
            for at, value in points:
                steps.note(at, value)


def _is_there(key: Key, views: Mapping[InstanceId, InstanceView]) -> bool:
    return any(name == "session" and value in views for name, value in key)


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that a condition may look at."""

    views: Mapping[InstanceId, InstanceView]
    figures: Figures
    history: History
    now: float


class Expression(Protocol):
    @property
    def labels(self) -> frozenset[str]: ...
    def promql(self) -> str: ...
    def vector(self, sight: Sight) -> Vector: ...
    def windows(self) -> Iterator[tuple[Series, float]]:
        """Which series it looks back at, and how far."""


_FUNCTIONS: Mapping[str, Callable[[Steps, float, float], float | None]] = {
    "increase": Steps.increase,
    "changes": Steps.changes,
    "min_over_time": Steps.least,
}


@dataclass(frozen=True, slots=True)
class Over:
    """A function of a series' last so many seconds."""

    function: str
    series: Series
    seconds: float
    offset: float = 0.0

    @property
    def labels(self) -> frozenset[str]:
        return self.series.labels

    def promql(self) -> str:
        offset = f" offset {duration(self.offset)}" if self.offset else ""
        window = f"{self.series.selector()}[{duration(self.seconds)}]{offset}"
        return self.series.over_summed(f"{self.function}({window})")

    def vector(self, sight: Sight) -> Vector:
        end = sight.now - self.offset
        measure = _FUNCTIONS[self.function]
        found: Vector = {}
        for key, steps in sight.history.of(self.series).items():
            if (value := measure(steps, end - self.seconds, end)) is not None:
                found[key] = value
        return found

    def windows(self) -> Iterator[tuple[Series, float]]:
        yield self.series, self.seconds + self.offset


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

    def windows(self) -> Iterator[tuple[Series, float]]:
        yield self.series, self.seconds


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Binary:
    """Two sides of the same machine and session, or one side and a number."""

    left: Expression
    sign: str
    right: "Expression | float"

    @property
    def labels(self) -> frozenset[str]:
        return self.left.labels

    def promql(self) -> str:
        left = bracketed(self.left)
        if isinstance(self.right, float | int):
            return f"{left} {self.sign} {self.right:.12g}"
        ignored = sorted(self.left.labels | self.right.labels)
        # The left side's own labels would keep the sides apart.
        clause = f" ignoring ({', '.join(ignored)})" if ignored else ""
        return f"{left} {self.sign}{clause} {bracketed(self.right)}"

    def vector(self, sight: Sight) -> Vector:
        left = self.left.vector(sight)
        if isinstance(self.right, float | int):
            number = float(self.right)
            return self._each(left, dict.fromkeys(left, number))
        right = self.right.vector(sight)
        if self.sign == "or":
            return {**right, **left}
        if self.sign == "unless":
            return {key: value for key, value in left.items() if key not in right}
        if self.sign == "and":
            return {key: value for key, value in left.items() if key in right}
        return self._each(left, right)

    def _each(self, left: Vector, right: Vector) -> Vector:
        if self.sign in _COMPARISONS:
            holds = _COMPARISONS[self.sign]
            return {
                key: one for key, one in left.items() if key in right and holds(one, right[key])
            }
        reckon = _divide if self.sign == "/" else _ARITHMETIC[self.sign]
        return {key: reckon(one, right[key]) for key, one in left.items() if key in right}

    def windows(self) -> Iterator[tuple[Series, float]]:
        yield from self.left.windows()
        if not isinstance(self.right, float | int):
            yield from self.right.windows()


@dataclass(frozen=True, slots=True)
class Fold:
    """All sessions of a machine together: their sum, or how many there are."""

    how: str
    inner: Expression

    @property
    def labels(self) -> frozenset[str]:
        return frozenset()

    def promql(self) -> str:
        names = ", ".join(sorted({"session", *self.inner.labels}))
        return f"{self.how} without ({names}) ({self.inner.promql()})"

    def vector(self, sight: Sight) -> Vector:
        found = self.inner.vector(sight)
        if not found:
            return {}
        return {(): float(len(found)) if self.how == "count" else math.fsum(found.values())}

    def windows(self) -> Iterator[tuple[Series, float]]:
        return self.inner.windows()


@dataclass(frozen=True, slots=True)
class WithEngine:
    """The same result, carrying which engine the session runs on."""

    inner: Expression

    @property
    def labels(self) -> frozenset[str]:
        return self.inner.labels | {"engine"}

    def promql(self) -> str:
        on = "on (instance, job, machine, session) group_left (engine)"
        return f"{bracketed(self.inner)} * {on} wa_session_info"

    def vector(self, sight: Sight) -> Vector:
        found: Vector = {}
        for key, value in self.inner.vector(sight).items():
            view = sight.views.get(InstanceId(dict(key).get("session", "")))
            if view is not None:
                found[tuple(sorted((*key, ("engine", view.instance.engine))))] = value
        return found

    def windows(self) -> Iterator[tuple[Series, float]]:
        return self.inner.windows()


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

    def windows(self) -> Iterator[tuple[Series, float]]:
        return iter(())


@dataclass(frozen=True, slots=True)
class Always:
    @property
    def labels(self) -> frozenset[str]:
        return frozenset()

    def promql(self) -> str:
        return "vector(1)"

    def vector(self, sight: Sight) -> Vector:
        return {(): 1.0}

    def windows(self) -> Iterator[tuple[Series, float]]:
        return iter(())


def bracketed(expression: Expression) -> str:
    simple = not isinstance(expression, Binary | WithEngine)
    return expression.promql() if simple else f"({expression.promql()})"


def duration(seconds: float) -> str:
    """As Prometheus writes it, in its largest whole unit."""
    milliseconds = round(seconds * 1000)
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
