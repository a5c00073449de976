"""The base's rows of the table of alerts: condition, duration, severity and summary of each. The
Prometheus rules and what the agent raises itself are made from the table."""

from agent.core.alerts.alert import Alert, AlertPolicy
from agent.core.alerts.table.application import application
from agent.core.alerts.table.connectivity import availability, connectivity
from agent.core.alerts.table.performance import performance
from agent.core.alerts.table.system import system
from agent.core.findings.memory import MemoryPolicy


def base_alerts(alerts: AlertPolicy, memory: MemoryPolicy) -> tuple[Alert, ...]:
    return (
        *application(alerts),
        *connectivity(alerts),
        *availability(alerts),
        *performance(alerts, memory),
        *system(alerts),
    )
