"""The table of alerts: those of the base and those of the wings."""

from agent.core.alerts.alert import Alert, AlertPolicy
from agent.core.alerts.table import base_alerts
from agent.core.findings.memory import MemoryPolicy
from agent.wing import modules_of

_ALERTS, _MEMORY = AlertPolicy(), MemoryPolicy()


def alert_table(alerts: AlertPolicy = _ALERTS, memory: MemoryPolicy = _MEMORY) -> tuple[Alert, ...]:
    """The alerts with these limits; of a session's memory, the limits that the agent acts at."""
    of_wings = (alert for module in modules_of("alerts") for alert in module.ALERTS)
    return (*base_alerts(alerts, memory), *of_wings)
