"""What the last look found, so that a look computes again only what changed: the series of sessions
with a new view, the windows that a value entered or left, the conditions that read another result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from agent.core.alerts.history import HistorySteps

if TYPE_CHECKING:
    from agent.core.alerts.source import Expression, Key, Sight, Vector

PartT = TypeVar("PartT")


class Composed(Protocol):
    """A part of a condition that reads nothing but the results of other parts."""

    @property
    def parts(self) -> "tuple[Expression, ...]": ...
    @property
    def combine(self) -> "Callable[..., Vector]": ...


class Measured(Protocol):
    """A part that reads the history or the sessions itself; it is read at each look."""

    def measure(self, sight: "Sight") -> "Vector": ...


class Window(NamedTuple):
    """A function's value over one series' window, which holds until its ends pass other values."""

    steps: HistorySteps
    noted: int
    end: float
    start_until: float
    end_until: float
    value: float | None

    def holds(self, steps: HistorySteps, start: float, end: float) -> bool:
        return (
            self.steps is steps
            and self.noted == steps.noted
            and start < self.start_until
            and self.end <= end < self.end_until
        )


@dataclass(slots=True)
class _Result:
    part: object
    """Kept, so that no other object gets its identity."""
    look: object
    read: "tuple[Vector, ...]"
    vector: "Vector"


class Results:
    """The results of each part of the conditions. A result that is equal to the last one is the
    same object: by that the parts above know that nothing changed."""

    def __init__(self) -> None:
        self._of: dict[int, _Result] = {}
        self._windows: dict[int, dict[Key, Window]] = {}

    def composed(self, part: Composed, sight: "Sight") -> "Vector":
        last = self._of.get(id(part))
        if last is not None and last.look is sight.look:
            return last.vector
        read = tuple(below.vector(sight) for below in part.parts)
        if last is not None and all(map(is_, read, last.read)):
            last.look = sight.look
            return last.vector
        return self._keep(part, sight, read, part.combine(*read))

    def measured(self, part: Measured, sight: "Sight") -> "Vector":
        last = self._of.get(id(part))
        if last is not None and last.look is sight.look:
            return last.vector
        return self._keep(part, sight, (), part.measure(sight))

    def _keep(
        self, part: object, sight: "Sight", read: "tuple[Vector, ...]", vector: "Vector"
    ) -> "Vector":
        last = self._of.get(id(part))
        if last is not None and last.vector == vector:
            vector = last.vector
        self._of[id(part)] = _Result(part, sight.look, read, vector)
        return vector

    def windows(self, part: Measured, those: Mapping["Key", HistorySteps]) -> "dict[Key, Window]":
        """The last values over `those` series; of others none is kept."""
        windows = self._windows.setdefault(id(part), {})
        if len(windows) > len(those):
            for key in [key for key in windows if key not in those]:
                del windows[key]
        return windows


def shared(part: PartT, pool: dict[object, Any]) -> PartT:
    """The same condition, with equal parts as one object: each is computed once."""
    if part not in pool:
        pool[part] = part
        if is_dataclass(part) and not isinstance(part, type):
            below = {its.name: getattr(part, its.name) for its in fields(part)}
            same = {name: shared(of, pool) for name, of in below.items() if is_dataclass(of)}
            pool[part] = replace(part, **same) if same else part
    found: PartT = pool[part]
    return found
