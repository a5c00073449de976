"""The sources of conditions: series, their past, and the present views and figures."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

from agent.core.alerts.history import HistorySteps
from agent.core.alerts.readings import Readings, key_of
from agent.core.alerts.results import Results
from agent.core.model import InstanceId
from agent.core.view import InstanceView

Key = tuple[tuple[str, str], ...]
"""The labels of one result, sorted; () for the machine's own."""
Vector = dict[Key, float]

BRIDGE = "4m"
"""Longer than WaAgentDown takes to fire; from then on that alert covers the sessions."""

_LABELS = re.compile(r'(\w+)=~?"')
_TARGET = frozenset({"job"})
"""Labels that Prometheus gives to all series of a machine alike."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the agent and the machine; no session's view has them."""

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
    """By group (engine, or engine/backend); one that never had any may be missing."""
    backends: Mapping[str, bool] = field(default_factory=dict)
    """By name: does its server answer?"""
    backend_warnings: Mapping[str, bool] = field(default_factory=dict)
    """By name: does its worker warn of what its logs do not tell?"""
    backend_reasons: Mapping[str, str] = field(default_factory=dict)
    """By name: the short code of why its server is not up."""
    incident_reasons: Mapping[str, str] = field(default_factory=dict)
    """By group: the short code of what its members fail with."""
    of_wings: Mapping[str, Any] = field(default_factory=dict)
    """What the part of each wing counts, by the wing's name."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric, as it is named on /metrics and as the agent reads it itself."""

    metric: str
    matcher: str = ""
    of_session: Callable[[InstanceView], float | None] | None = None
    of_agent: Callable[[Figures], Vector] | None = None
    summed: tuple[str, ...] = ()
    """Labels over which it is added up."""
    bridged: bool = True
    """Whether Prometheus takes its last value for one that holds on while no scrape comes. Not for
    a series whose absence says something by itself."""

    @property
    def labels(self) -> frozenset[str]:
        """What its series carry beside the session's and the machine's own labels."""
        return frozenset(_LABELS.findall(self.matcher)) - frozenset(self.summed) - _TARGET

    def selector(self) -> str:
        return f"{self.metric}{{{self.matcher}}}" if self.matcher else self.metric

    def promql(self) -> str:
        """Its present value; over a gap in the scrapes the last one, for BRIDGE at most. Otherwise
        each restart of the agent would look like an all-clear."""
        if not self.bridged:
            return self.over_summed(self.selector())
        return self.over_summed(f"last_over_time({self.selector()}[{BRIDGE}])")

    def over_summed(self, text: str) -> str:
        return f"sum without ({', '.join(self.summed)}) ({text})" if self.summed else text

    def vector(self, sight: "Sight") -> Vector:
        return sight.readings.of(self, sight.views, sight.figures)

    def read(self, views: Mapping[InstanceId, InstanceView], figures: Figures) -> Vector:
        if self.of_agent is not None:
            return self.of_agent(figures)
        assert self.of_session is not None
        read = self.of_session
        values: Vector = {}
        for id, view in views.items():
            value = read(view)
            if value is not None:
                values[key_of(id)] = value
        return values


class Past:
    """What one series was, by labels."""

    __slots__ = ("_noted", "last_values", "moving", "steps")

    def __init__(self) -> None:
        self._noted: Vector | None = None
        """What was read last; no reading is changed afterwards."""
        self.steps: dict[Key, HistorySteps] = {}
        self.last_values: Vector = {}
        """The last value of each."""
        self.moving: dict[Key, HistorySteps] = {}
        """Those that had more than one value in the time that is remembered."""

    def note(self, values: Vector, now: float, before: float) -> None:
        if values is not self._noted:  # as a rule nothing has changed
            self._noted = values
            for key, value in values.items():
                if key not in self.last_values or self.last_values[key] != value:
                    self._note_one(key, now, value)
        for key in [key for key, steps in self.moving.items() if not steps.forget(before)]:
            del self.moving[key]

    def take_over(self, key: Key, points: list[tuple[float, float]]) -> None:
        self._noted = None
        for at, value in points:
            self._note_one(key, at, value)

    def drop(self, key: Key) -> None:
        del self.steps[key], self.last_values[key]
        self.moving.pop(key, None)

    def _note_one(self, key: Key, at: float, value: float) -> None:
        if (steps := self.steps.get(key)) is None:
            steps = self.steps[key] = HistorySteps()
        steps.note(at, value)
        self.last_values[key] = value
        if len(steps) > 1:
            self.moving[key] = steps


class History:
    """The past of every series that a condition looks back at."""

    def __init__(self, expressions: Iterator["Expression"] | list["Expression"]) -> None:
        self._windows: dict[Series, float] = {}
        for expression in expressions:
            for series, seconds in windows_of(expression):
                self._windows[series] = max(seconds, self._windows.get(series, 0.0))
        self._past: dict[Series, Past] = {series: Past() for series in self._windows}

    def note(
        self,
        views: Mapping[InstanceId, InstanceView],
        figures: Figures,
        now: float,
        readings: Readings | None = None,
    ) -> Iterator[Series]:
        """One series after the other, so that a caller may let others run in between."""
        read = readings or Readings()
        for series, seconds in self._windows.items():
            past, values = self._past[series], read.of(series, views, figures)
            past.note(values, now, now - seconds)
            if len(past.steps) > len(values):
                gone = [
                    key for key in past.steps if key not in values and not _is_there(key, views)
                ]
                for key in gone:
                    past.drop(key)
            yield series

    def past(self, series: Series) -> Past:
        return self._past.get(series) or Past()

    def of(self, series: Series) -> Mapping[Key, HistorySteps]:
        return self.past(series).steps

    def before(self, series: Series, key: Key, points: list[tuple[float, float]]) -> None:
        """Take over what was so before this history began; oldest first."""
        if series in self._past:
            self._past[series].take_over(key, points)


def _is_there(key: Key, views: Mapping[InstanceId, InstanceView]) -> bool:
    return any(name == "session" and value in views for name, value in key)


def windows_of(part: Any) -> Iterator[tuple[Series, float]]:
    """Which series a condition looks back at, and how far: its leaves say so."""
    if (reach := getattr(part, "reach", None)) is not None:
        yield part.series, reach
    elif is_dataclass(part) and not isinstance(part, Series):
        for its in fields(part):
            yield from windows_of(getattr(part, its.name))


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that a condition may look at."""

    views: Mapping[InstanceId, InstanceView]
    figures: Figures
    history: History
    now: float
    now_wall: float = 0.0
    readings: Readings = field(default_factory=Readings)
    results: Results = field(default_factory=Results)
    look: object = field(default_factory=object)
    """Stands for this look alone."""

    def reason(self, metric: str, labels: Key) -> str:
        """What the label `reason` of such a metric says; "" where there is no series."""
        known = dict(labels)
        match metric:
            case "wa_session_reason":
                view = self.views.get(InstanceId(known.get("session", "")))
                return "" if view is None else view.reason
            case "wa_backend_reason":
                return self.figures.backend_reasons.get(known.get("backend", ""), "")
            case _:
                group = "/".join(filter(None, (known.get("engine", ""), known.get("backend", ""))))
                return self.figures.incident_reasons.get(group, "")


class Expression(Protocol):
    @property
    def labels(self) -> frozenset[str]: ...
    def promql(self) -> str: ...
    def vector(self, sight: Sight) -> Vector: ...
