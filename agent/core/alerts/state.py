"""From conditions that hold to alerts that are pending, fire and are over."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.core.alerts.alert import INHIBITIONS, Alert, Inhibition, Unit
from agent.core.alerts.show import show_value, summarize
from agent.core.alerts.source import Key


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One alert about one thing. Times are of the clock that `advance` is asked with."""

    alert: Alert
    labels: Key
    state: AlertState
    since: float
    """When the condition began to hold."""
    value: float
    fired_at: float | None = None
    over_at: float | None = None
    reason: str = ""
    """The short code of why, as last seen."""
    not_over_before: float = 0.0
    """It fires until then at least: its condition is not known again before."""

    @property
    def name(self) -> str:
        return self.alert.name

    @property
    def session(self) -> str:
        return self.label("session")

    @property
    def sentence(self) -> str:
        return summarize(self.alert, self.labels, self.value, self.reason)

    @property
    def news(self) -> str:
        """The sentence when it begins, and when it ends."""
        if self.over_at is None:
            return f"{self.name}: {self.sentence}"
        about = self.session or self.label("backend") or self.label("engine")
        lasted = self.over_at - (self.since if self.fired_at is None else self.fired_at)
        after = show_value(max(round(lasted), 1), Unit.SECONDS)
        return f"{self.name} is over{about and f' for {about}'}, after {after}"

    def label(self, name: str) -> str:
        return next((value for key, value in self.labels if key == name), "")


Active = Mapping[tuple[str, Key], ActiveAlert]


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that began to fire, or one that is over."""

    active: ActiveAlert

    @property
    def kind(self) -> str:
        return "alert" if self.active.state is AlertState.FIRING else "alert_over"


@dataclass(frozen=True, slots=True)
class AlertBoard:
    """The active alerts at `now` (`wall` is the same moment for people)."""

    alerts: tuple[ActiveAlert, ...] = ()
    silenced: Mapping[tuple[str, Key], str] = field(default_factory=dict)
    now: float = 0.0
    wall: float = 0.0
    looked_wall: float | None = None
    """When the table was last gone through; None: not yet."""
    alertmanager_problem: str = ""
    runbooks: str = "/runbook"
    """The page that every alert has a part on."""

    def wall_of(self, at: float | None) -> float | None:
        return None if at is None else self.wall - (self.now - at)


def advance(
    active: Active,
    conditions: Iterable[tuple[Alert, Mapping[Key, float]]],
    now: float,
    *,
    patience: float = 1.0,
    keep: float = 900.0,
    reason: Callable[[Alert, Key], str] = lambda _alert, _labels: "",
) -> tuple[dict[tuple[str, Key], ActiveAlert], list[Change]]:
    """Take in the conditions that hold now; a resolved alert stays visible for `keep` seconds.
    `patience`: factor on the time for which each condition must hold."""
    following: dict[tuple[str, Key], ActiveAlert] = {}
    changes = []
    for alert, vector in conditions:
        for labels, value in vector.items():
            before = active.get((alert.name, labels))
            fresh = replace(
                _goes_on(before, alert, labels, value, now), reason=reason(alert, labels)
            )
            if (
                fresh.state is AlertState.PENDING
                and now - fresh.since >= alert.for_seconds * patience
            ):
                fresh = replace(fresh, state=AlertState.FIRING, fired_at=now)
                changes.append(Change(fresh))
            following[alert.name, labels] = fresh
    for key, before in active.items():
        if key in following or before.state is AlertState.PENDING:
            continue
        if before.state is AlertState.FIRING and now < before.not_over_before:
            following[key] = before
        elif before.state is AlertState.FIRING:
            over = replace(before, state=AlertState.RESOLVED, over_at=now)
            following[key] = over
            changes.append(Change(over))
        elif before.over_at is not None and 0 <= now - before.over_at < keep:
            following[key] = before
    return following, changes


def _goes_on(
    before: ActiveAlert | None, alert: Alert, labels: Key, value: float, now: float
) -> ActiveAlert:
    if before is None or before.state is AlertState.RESOLVED:
        return ActiveAlert(alert, labels, AlertState.PENDING, now, value)
    return replace(before, alert=alert, value=value)


def silenced(active: Collection[ActiveAlert]) -> dict[tuple[str, Key], str]:
    """Which alerts are silent, and which alert silences each of them."""
    firing = [alert for alert in active if alert.state is AlertState.FIRING]
    sources: dict[str, list[ActiveAlert]] = {}
    for alert in firing:
        sources.setdefault(alert.name, []).append(alert)
    silencers: dict[tuple[str, Key], str] = {}
    for rule in INHIBITIONS:
        for source in sources.get(rule.source, ()):
            for alert in firing:
                if _silences(rule, source, alert):
                    silencers.setdefault((alert.name, alert.labels), source.name)
    return silencers


def _silences(rule: Inhibition, source: ActiveAlert, other: ActiveAlert) -> bool:
    named = any(
        other.name == name or (name.endswith("*") and other.name.startswith(name[:-1]))
        for name in rule.silences
    )
    return named and all(source.label(key) == other.label(key) for key in rule.equal)
