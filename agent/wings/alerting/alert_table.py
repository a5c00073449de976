"""The table of alerts as a look goes through it: what is off is left out, equal parts are one."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from agent.clock import boot_now
from agent.config import Config
from agent.core.alerts import Alert, AlertPolicy, Results, shared
from agent.core.findings.memory import MemoryPolicy

AT_A_TIME = 0.001
"""Seconds that a look computes until other tasks may run."""


@dataclass(frozen=True, slots=True)
class AlertTable:
    """The alerts with some limits, and what their conditions were at the last look."""

    limits: tuple[AlertPolicy, MemoryPolicy]
    alerts: tuple[Alert, ...]
    results: Results = field(default_factory=Results)


def table_in_force(config: Config, last: AlertTable | None) -> AlertTable:
    """The last one as long as its limits are in force: other limits have other results."""
    limits = config.alerts, config.memory
    if last is not None and last.limits == limits:
        return last
    pool: dict[object, Any] = {}
    alerts = tuple(
        replace(alert, condition=shared(alert.condition, pool))
        for alert in config.alert_table
        if alert.name not in config.alerts.off
    )
    return AlertTable(limits, alerts)


class Rests:
    """Lets other tasks run in a long computation, each time that it took a moment."""

    def __init__(self) -> None:
        self._since = boot_now()

    async def if_due(self) -> None:
        if boot_now() - self._since >= AT_A_TIME:
            await asyncio.sleep(0)
            self._since = boot_now()
