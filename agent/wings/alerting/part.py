"""Evaluates the table of alerts: changes go to the journal, the log and, if one is set, to an
Alertmanager; for machines that have no Prometheus."""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_now, wall_at_boot
from agent.config import Config
from agent.core.alerts import (
    ActiveAlert,
    Alert,
    AlertBoard,
    AlertPolicy,
    Change,
    Figures,
    History,
    Key,
    Readings,
    Severity,
    Sight,
    advance,
    silenced,
)
from agent.core.alerts.series import STARTED
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.view import AgentStatus, InstanceView
from agent.daemon.wing_parts import Around, Begin
from agent.errors import StoreError
from agent.log import bound
from agent.metrics.exporter import Exporter
from agent.metrics.rules import JOB
from agent.metrics.runbook import link, what_to_do
from agent.metrics.text import COUNTER, Family, sample
from agent.store.database import Store
from agent.wing import runbook_page
from agent.wings.alerting.alert_table import AlertTable, Rests, table_in_force
from agent.wings.alerting.alertmanager import Alertmanager, Raised
from agent.wings.alerting.alerts_kept import ROW, PendingRow, firing_in, pending_in

log = logging.getLogger(__name__)

READY_WITHIN = 60.0
"""So long the first look waits for what is restored; before, everything looks down."""
KEPT_PAST = 10
CLOCK_GRACE = 1.0
"""The process' beginning is known to a tick of the kernel, by a clock that may be put right."""


DELIVERIES = Family("wa_agent_alert_deliveries_total", COUNTER, "Lists sent to an Alertmanager.")


def open_part(around: Around) -> "Alerting":
    return Alerting(
        around.in_force,
        around.supervisor.views,
        around.supervisor.status,
        around.exporter,
        around.store,
        alertmanager_of(around.config.alerts),
        around.figures,
    )


@dataclass(slots=True)
class Alerting:
    config: Callable[[], Config]
    views: Callable[[], Mapping[InstanceId, InstanceView]]
    status: Callable[[], AgentStatus]
    exporter: Exporter
    store: Store
    alertmanager: Alertmanager | None
    of_wings: Callable[[], Mapping[str, Any]] = dict
    """What the parts of wings count, by the wing's name."""
    _history: History = field(init=False)
    _readings: Readings = field(init=False, default_factory=Readings)
    _table: AlertTable | None = field(init=False, default=None)
    _active: dict[tuple[str, Key], ActiveAlert] = field(init=False, default_factory=dict)
    _silenced: dict[tuple[str, Key], str] = field(init=False, default_factory=dict)
    _pending_row: PendingRow = field(init=False, default_factory=PendingRow)
    _looked_wall: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        table = self.config().alert_table
        self._history = History([alert.condition for alert in table])

    def board(self) -> AlertBoard:
        """What is active, for people."""
        problem = self.alertmanager.problem if self.alertmanager is not None else ""
        return AlertBoard(
            tuple(self._active.values()),
            dict(self._silenced),
            boot_now(),
            time.time(),
            self._looked_wall,
            problem,
            self.config().runbooks or runbook_page(),
        )

    def tasks(self) -> Mapping[str, Begin]:
        sending = {} if self.alertmanager is None else {"alertmanager": self.alertmanager.run}
        return {"alerts": self.run, **sending}

    def reload(self, config: Config) -> None:
        """Each look asks for the settings in force."""

    def samples(self) -> Iterator[tuple[Family, str]]:
        if self.alertmanager is not None:
            counted = self.alertmanager.deliveries.items()
            lines = [sample(DELIVERIES.name, count, result=result) for result, count in counted]
            yield DELIVERIES, "".join(lines)

    def figures(self) -> None:
        """No alert reads the alerting."""

    async def run(self) -> None:
        await self._take_over()
        await self._until_ready()
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("cannot evaluate the alerts")
            chosen = self.config().alerts
            await asyncio.sleep(max(chosen.interval * min(chosen.patience, 1.0), 0.2))

    async def look(self) -> None:
        """Evaluate the whole table; other tasks run in between."""
        config, now = self.config(), boot_now()
        views, figures = dict(self.views()), self._figures()
        table, rests = table_in_force(config, self._table), Rests()
        self._table = table
        for _ in self._history.note(views, figures, now, self._readings):
            await rests.if_due()
        sight = Sight(
            views, figures, self._history, now, time.time(), self._readings, table.results
        )
        values: list[tuple[Alert, Mapping[Key, float]]] = []
        for alert in table.alerts:
            values.append((alert, alert.condition.vector(sight)))
            await rests.if_due()
        self._readings.end_look()
        self._active, changes = advance(
            self._active,
            values,
            now,
            patience=config.alerts.patience,
            reason=lambda alert, labels: (
                "" if alert.because is None else sight.reason(alert.because.metric, labels)
            ),
        )
        self._silenced = silenced(self._active.values())
        self._looked_wall = time.time()
        await self._tell(changes)
        await self._keep_pending()

    async def _tell(self, changes: Sequence[Change]) -> None:
        entries = []
        for change in changes:
            alert = change.active
            if alert.alert.severity is Severity.NONE:
                continue
            said = self._entry(change)
            entries.append(said)
            self._log(change, said)
        if self.alertmanager is not None:
            self.alertmanager.tell(self._picture(), changed=bool(changes))
        if entries:
            await self.store.note(*entries)

    async def _keep_pending(self) -> None:
        row = self._pending_row.due(self._active.values(), boot_now())
        if row is not None:
            try:
                await self.store.put_fact(ROW, row)
            except StoreError as error:
                log.warning("cannot write the start times of alert conditions: %s", error)

    def _entry(self, change: Change) -> JournalEntry:
        alert = change.active
        detail = {
            "alert": alert.name,
            "severity": alert.alert.severity.value,
            "group": alert.alert.group.value,
            "labels": dict(alert.labels),
            "value": alert.value if math.isfinite(alert.value) else None,
            "runbook": link(alert.alert, self.config().runbooks),
        }
        if by := self._silenced.get((alert.name, alert.labels)):
            detail["silenced_by"] = by
        return JournalEntry(
            change.kind,
            alert.news,
            Category.HEALTH if alert.session else Category.SYSTEM,
            InstanceId(alert.session) if alert.session else None,
            time.time(),
            detail,
        )

    def _log(self, change: Change, said: JournalEntry) -> None:
        alert = change.active
        level = logging.INFO
        if change.kind == "alert" and (alert.name, alert.labels) not in self._silenced:
            critical = alert.alert.severity is Severity.CRITICAL
            level = logging.ERROR if critical else logging.WARNING
        bound(said.category, said.instance).log(level, "%s", said.sentence)

    def _figures(self) -> Figures:
        seen, status = self.exporter.machine.values(), self.status()
        requests, failed = self.exporter.http.counted()
        return Figures(
            memory_total=seen["wa_host_memory_total_bytes"],
            memory_used=seen["wa_host_memory_used_bytes"],
            cpu_ratio=seen["wa_host_cpu_usage_ratio"],
            disk_size=seen.get("wa_host_filesystem_size_bytes"),
            disk_available=seen.get("wa_host_filesystem_avail_bytes"),
            open_fds=seen["process_open_fds"],
            max_fds=seen["process_max_fds"],
            started_wall=seen["process_start_time_seconds"],
            requests=requests,
            requests_failed=failed,
            incidents={engine: members > 0 for engine, members in status.incidents.items()},
            backends={backend.name: backend.up for backend in self.exporter.backends()},
            backend_warnings={
                backend.name: bool(backend.warning) for backend in self.exporter.backends()
            },
            backend_reasons={
                backend.name: backend.reason
                for backend in self.exporter.backends()
                if not backend.up
            },
            incident_reasons=status.incident_reasons,
            of_wings=self.of_wings(),
        )

    def _picture(self) -> list[Raised]:
        machine = self.config().alerts.machine or socket.gethostname()
        page = self.config().runbooks
        apart = wall_at_boot()
        return [
            Raised(
                {
                    "alertname": alert.name,
                    "severity": alert.alert.severity.value,
                    "group": alert.alert.group.value,
                    "job": JOB,
                    "machine": machine,
                    **dict(alert.labels),
                },
                {
                    "summary": alert.sentence,
                    "description": what_to_do(alert.alert, alert.session),
                    "runbook": link(alert.alert, page),
                },
                apart + alert.fired_at,
                None if alert.over_at is None else apart + alert.over_at,
            )
            for alert in self._active.values()
            if alert.fired_at is not None
        ]

    async def _take_over(self) -> None:
        """Alerts that fired when the last agent ended still fire, or are over: none is announced
        twice."""
        try:
            past = await self.store.history(kinds=("alert", "alert_over"), limit=1000)
            starts = await self.store.history(kinds=("agent_started",), limit=KEPT_PAST)
            row = await self.store.get_fact(ROW)
        except StoreError as error:
            log.warning("cannot read past alerts: %s", error)
            return
        apart = wall_at_boot()
        table, now = self.config().alert_table, boot_now()
        pending = pending_in(row or "", table, now)
        firing = firing_in(past, table, apart, now)
        self._active = {(alert.name, alert.labels): alert for alert in (*pending, *firing)}
        # The start of this agent is read at each look, by its process' beginning.
        own = self.exporter.machine.started_wall - CLOCK_GRACE
        earlier = [entry.wall for entry in reversed(starts) if entry.wall < own]
        self._history.before(STARTED, (), [(wall - apart, wall) for wall in earlier])

    async def _until_ready(self) -> None:
        for _ in range(int(READY_WITHIN / 0.2)):
            if self.status().ready:
                return
            await asyncio.sleep(0.2)


def alertmanager_of(section: AlertPolicy) -> Alertmanager | None:
    """None where no Alertmanager is set."""
    if not section.alertmanager:
        return None
    return Alertmanager(section.alertmanager, repeat=max(60 * min(section.patience, 1.0), 1.0))
