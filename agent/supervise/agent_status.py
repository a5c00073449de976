"""The agent's own figures: does its loop turn, are sessions brought back, what does it cost."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent import VERSION
from agent.clock import boot_now
from agent.core.model import PASSING, InstanceId
from agent.core.view import AgentStatus
from agent.host.life import Host
from agent.link.client import RULES, LinkStats
from agent.store.connect import TROUBLES
from agent.supervise.loop import Loop
from agent.supervise.registry import Registry

_NO_ERRORS = dict.fromkeys(TROUBLES, 0)
_NO_REFUSALS = dict.fromkeys(RULES, 0)


@dataclass(slots=True, eq=False, repr=False)
class StatusFigures:
    host: Host
    loop: Loop
    registry: Registry
    link_stats: LinkStats
    _started_wall: float = field(init=False, default_factory=time.time)
    _to_restore: int = field(init=False, default=0)
    _pending: set[InstanceId] = field(init=False, default_factory=set)
    """Those of them whose start has not ended."""

    def expect(self, instances: Iterable[InstanceId]) -> None:
        """`status` is ready only after a pass has seen all of these."""
        self._pending = set(instances)
        self._to_restore = len(self._pending)

    def status(self) -> AgentStatus:
        age = boot_now() - self.loop.turned_at
        settings, facts = self.registry.settings, self.registry.facts
        there = [facts[id] for id in self._pending if id in facts]
        # A start counts once, whatever the session does later.
        self._pending = {
            its.id for its in there if not its.observed or its.record.status in PASSING
        }
        return AgentStatus(
            version=VERSION,
            host=self.host.name,
            started_wall=self._started_wall,
            ready=all(its.observed for its in there),
            restoring=(self._to_restore - len(self._pending), self._to_restore),
            passes_total=self.loop.passes,
            pass_seconds_total=self.loop.pass_seconds,
            last_pass_age=age,
            passes_late=self.loop.late,
            db_errors={**_NO_ERRORS, **self.registry.store.errors},
            link_refusals={**_NO_REFUSALS, **self.link_stats},
            dbus_connected=self.host.connected,
            jobs_pending=self.host.jobs_pending,
            incidents=self.registry.gate.incidents.codes(),
            reconnects=self.registry.reconnects,
            config_read_wall=settings.read_wall,
            config_refused=settings.refused,
            alive=age <= max(settings.config.health.interval, 30.0),
        )
