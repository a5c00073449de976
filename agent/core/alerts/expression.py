"""Conditions that are written as PromQL and evaluated by the agent alike.

A condition is a tree over readings of series; its result has a value for each set of labels, and an
empty result means that all is well. The words are Prometheus' own.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core.alerts.source import BRIDGE, Expression, Sight, Vector
from agent.core.model import InstanceId

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
_NONE: Vector = {}


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

    @property
    def parts(self) -> tuple[Expression, ...]:
        if isinstance(self.right, float | int):
            return (self.left,)
        return (self.left, self.right)

    def vector(self, sight: Sight) -> Vector:
        return sight.results.composed(self, sight)

    def combine(self, left: Vector, right: Vector = _NONE) -> Vector:
        if isinstance(self.right, float | int):
            return self._with(left, float(self.right))
        if self.sign == "or":
            return {**right, **left}
        if self.sign == "unless":
            return {key: value for key, value in left.items() if key not in right}
        if self.sign == "and":
            return {key: value for key, value in left.items() if key in right}
        return self._each(left, right)

    def _with(self, left: Vector, number: float) -> Vector:
        if self.sign in _COMPARISONS:
            holds = _COMPARISONS[self.sign]
            return {key: value for key, value in left.items() if holds(value, number)}
        reckon = _divide if self.sign == "/" else _ARITHMETIC[self.sign]
        return {key: reckon(value, number) for key, value in left.items()}

    def _each(self, left: Vector, right: Vector) -> Vector:
        if self.sign in _COMPARISONS:
            holds = _COMPARISONS[self.sign]
            return {
                key: value
                for key, value in left.items()
                if key in right and holds(value, right[key])
            }
        reckon = _divide if self.sign == "/" else _ARITHMETIC[self.sign]
        return {key: reckon(value, right[key]) for key, value in left.items() if key in right}


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

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.inner,)

    def vector(self, sight: Sight) -> Vector:
        return sight.results.composed(self, sight)

    def combine(self, values: Vector) -> Vector:
        if not values:
            return {}
        return {(): float(len(values)) if self.how == "count" else math.fsum(values.values())}


@dataclass(frozen=True, slots=True)
class OfSession:
    """The same result with its session's engine and backend: inhibitions compare these labels."""

    inner: Expression

    @property
    def labels(self) -> frozenset[str]:
        return self.inner.labels | {"engine", "backend"}

    def promql(self) -> str:
        per_session = "instance, job, machine, session"
        # One per session, even where its info just changed: two would fail the whole rule.
        last = f"topk by ({per_session}) (1, last_over_time(wa_session_info[{BRIDGE}]))"
        info = f"(wa_session_info or on ({per_session}) {last})"
        return f"{bracketed(self.inner)} * on ({per_session}) group_left (engine, backend) {info}"

    def vector(self, sight: Sight) -> Vector:
        return sight.results.measured(self, sight)

    def measure(self, sight: Sight) -> Vector:
        values: Vector = {}
        for key, value in self.inner.vector(sight).items():
            view = sight.views.get(InstanceId(dict(key).get("session", "")))
            if view is None:
                continue
            more = [("engine", view.instance.engine)]
            if view.instance.backend:
                more.append(("backend", view.instance.backend))
            values[tuple(sorted((*key, *more)))] = value
        return values


@dataclass(frozen=True, slots=True)
class UnlessBackend:
    """The same result without what belongs to a backend for which `condition` holds."""

    inner: Expression
    condition: Expression

    @property
    def labels(self) -> frozenset[str]:
        return self.inner.labels

    def promql(self) -> str:
        on = "on (backend, instance, job, machine)"
        return f"{bracketed(self.inner)} unless {on} {bracketed(self.condition)}"

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.inner, self.condition)

    def vector(self, sight: Sight) -> Vector:
        return sight.results.composed(self, sight)

    def combine(self, inner: Vector, condition: Vector) -> Vector:
        away = {dict(key).get("backend", "") for key in condition}
        if not away:
            return inner
        return {key: value for key, value in inner.items() if dict(key).get("backend") not in away}


@dataclass(frozen=True, slots=True)
class While:
    """The same result, as long as `condition` holds for the machine."""

    inner: Expression
    condition: Expression

    @property
    def labels(self) -> frozenset[str]:
        return self.inner.labels

    def promql(self) -> str:
        on = "on (instance, job, machine)"
        return f"{bracketed(self.inner)} and {on} {bracketed(self.condition)}"

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.inner, self.condition)

    def vector(self, sight: Sight) -> Vector:
        return sight.results.composed(self, sight)

    def combine(self, inner: Vector, condition: Vector) -> Vector:
        return inner if condition else {}


def bracketed(expression: Expression) -> str:
    simple = not isinstance(expression, Binary | OfSession | UnlessBackend | While)
    return expression.promql() if simple else f"({expression.promql()})"


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
