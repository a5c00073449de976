"""What the next agent must know of the alerts. Firing alerts are in the journal; pending ones are
in one small row, for a restart of the agent must not restart their time."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_id
from agent.core.alerts import ActiveAlert, Alert, AlertState, Key
from agent.core.alerts.series import QR_REQUIRED, STARTED
from agent.core.alerts.source import windows_of
from agent.core.model import JournalEntry

ROW = "alerts_pending"
REFRESH = 60.0
"""Seconds after which the row is written again though nothing in it changed."""
LONGEST_GAP = 240.0
"""So long an agent may have been away; what Prometheus bridges too (source.BRIDGE)."""

Entry = tuple[str, Key, float]
"""An alert's name, its labels, and since when (boot clock) its condition holds."""


@dataclass(slots=True)
class PendingRow:
    """When the row has to be written, and its content."""

    _entries: frozenset[Entry] = frozenset()
    _at: float = field(default=-math.inf)

    def due(self, active: Iterable[ActiveAlert], now: float) -> str | None:
        """The new row, when the old one is out of date."""
        entries = frozenset(
            (alert.name, alert.labels, alert.since)
            for alert in active
            if alert.state is AlertState.PENDING and alert.alert.for_seconds
        )
        if entries == self._entries and (not entries or now - self._at < REFRESH):
            return None
        self._entries, self._at = entries, now
        return json.dumps({"boot": boot_id(), "at": now, "pending": sorted(entries)})


def pending_in(text: str, table: Sequence[Alert], now: float) -> list[ActiveAlert]:
    """The alerts of such a row; none of another boot, or of an agent that ended long ago."""
    known = {alert.name: alert for alert in table}
    try:
        row = json.loads(text)
        if row["boot"] != boot_id() or not 0 <= now - float(row["at"]) <= LONGEST_GAP:
            return []
        return [
            ActiveAlert(known[name], _key(labels), AlertState.PENDING, float(since), math.nan)
            for name, labels, since in row["pending"]
            if name in known
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []  # their times begin again


def _key(labels: Any) -> Key:
    return tuple(sorted((str(name), str(value)) for name, value in labels))


def firing_in(
    past: Sequence[JournalEntry], table: Sequence[Alert], apart: float, now: float
) -> list[ActiveAlert]:
    """The alerts whose last entry in the journal, newest first, is that they fire. An alert over a
    window is over only when the window has this agent's own readings: the last agent saw its cause.
    """
    known = {alert.name: alert for alert in table}
    seen: set[tuple[str, Key]] = set()
    firing = []
    for entry in past:
        labels = entry.detail.get("labels")
        alert = known.get(str(entry.detail.get("alert")))
        if alert is None or not isinstance(labels, Mapping):
            continue
        key = tuple(sorted((str(name), str(value)) for name, value in labels.items()))
        if (alert.name, key) in seen:
            continue
        seen.add((alert.name, key))
        if entry.kind == "alert":
            at, value = entry.wall - apart, entry.detail.get("value")
            value = float(value) if isinstance(value, int | float) else math.nan
            firing.append(
                ActiveAlert(
                    alert,
                    key,
                    AlertState.FIRING,
                    at,
                    value,
                    fired_at=at,
                    not_over_before=now + _looks_back(alert),
                )
            )
    return firing


_NOT_WHY = (STARTED, QR_REQUIRED)
"""The agent's own starts are read from the journal; changes of the other make none fire alone."""


def _looks_back(alert: Alert) -> float:
    windows = windows_of(alert.condition)
    return max((s for series, s in windows if series not in _NOT_WHY), default=0.0)
