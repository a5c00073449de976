"""Alerts: one table of conditions, their history, and what is active. Nothing here does I/O."""

from agent.core.alerts.alert import INHIBITIONS, Alert, AlertPolicy, Group, Severity
from agent.core.alerts.readings import Readings
from agent.core.alerts.results import Results, shared
from agent.core.alerts.source import Figures, History, Key, Sight
from agent.core.alerts.state import (
    ActiveAlert,
    AlertBoard,
    AlertState,
    Change,
    advance,
    silenced,
)

__all__ = [
    "INHIBITIONS",
    "ActiveAlert",
    "Alert",
    "AlertBoard",
    "AlertPolicy",
    "AlertState",
    "Change",
    "Figures",
    "Group",
    "History",
    "Key",
    "Readings",
    "Results",
    "Severity",
    "Sight",
    "advance",
    "shared",
    "silenced",
]
