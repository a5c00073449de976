"""What conditions are asked of: the series, what they were lately, and all that is seen now."""

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

BRIDGE = "4m"
"""Longer than it takes until WaAgentDown fires, which then speaks for the sessions."""

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
    """By group (engine, or engine/backend); one that never had any may be missing."""
    backends: Mapping[str, bool] = field(default_factory=dict)
    """By name: does its server answer?"""
    backend_warnings: Mapping[str, bool] = field(default_factory=dict)
    """By name: does its worker warn of what its logs do not tell?"""
    webhook_oldest_wall: float | None = None
    """When the oldest event happened that no webhook took yet; None: none waits."""
    backend_reasons: Mapping[str, str] = field(default_factory=dict)
    """By name: the short code of why its server is not up."""
    incident_reasons: Mapping[str, str] = field(default_factory=dict)
    """By group: the short code of what its members fail with."""


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
    """Whether Prometheus takes its last value for one that holds on while no scrape comes.

    Not for a series whose absence says something by itself.
    """

    @property
    def labels(self) -> frozenset[str]:
        """What its series carry beside the session's and the machine's own labels."""
        return frozenset(_LABELS.findall(self.matcher)) - frozenset(self.summed) - _TARGET

    def selector(self) -> str:
        return f"{self.metric}{{{self.matcher}}}" if self.matcher else self.metric

    def promql(self) -> str:
        """Its present value; over a gap in the scrapes the last one, as long as BRIDGE.

        Else every gap (a restart of the agent, its end) would be an all-clear, and every time
        that a condition must hold would begin again after it.
        """
        if not self.bridged:
            return self.over_summed(self.selector())
        return self.over_summed(f"last_over_time({self.selector()}[{BRIDGE}])")

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
        keys: dict[Key, Key] = {}  # one object of each for all series
        for series, seconds in self._windows.items():
            past, found = self._past[series], series.read(views, figures)
            for key, value in found.items():
                if (steps := past.get(key)) is None:
                    steps = past[keys.setdefault(key, key)] = Steps()
                steps.note(now, value)
                steps.forget(now - seconds)
            if len(past) > len(found):
                gone = [key for key in past if key not in found and not _is_there(key, views)]
                for key in gone:
                    del past[key]
            yield series

    def of(self, series: Series) -> Mapping[Key, Steps]:
        return self._past.get(series, {})

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
    now_wall: float = 0.0

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
    def windows(self) -> Iterator[tuple[Series, float]]:
        """Which series it looks back at, and how far."""
