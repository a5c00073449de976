"""The agent's own figures: is the loop turning, is everything brought back, what does it cost."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent import VERSION
from agent.clock import boot_now
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.view import CHECKS, AgentStatus, CheckTime
from agent.host.base import Host
from agent.link.client import LinkStats
from agent.link.limits import REFUSALS
from agent.log import lines_lost
from agent.store.database import Store
from agent.store.errors import TROUBLES
from agent.supervise.facts import Facts
from agent.supervise.loop import Loop
from agent.supervise.passes.repair import Ladder
from agent.supervise.registry import Registry
from agent.supervise.settings import Settings
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.queues import Gates

LAG_EVERY = 1.0
_NO_ERRORS = dict.fromkeys(TROUBLES, 0)
_NO_REFUSALS = dict.fromkeys(REFUSALS, 0)


@dataclass(slots=True)
class CheckTimes:
    """How long each kind of check took, counted since the agent's start."""

    _times: dict[str, CheckTime] = field(default_factory=lambda: dict.fromkeys(CHECKS, CheckTime()))

    def note(self, check: str, seconds: float) -> None:
        before = self._times[check]
        self._times[check] = CheckTime(before.count + 1, before.seconds + seconds)

    def all(self) -> Mapping[str, CheckTime]:
        return dict(self._times)


class OwnFigures:
    """Measured as it runs; `status` is the picture of the moment."""

    def __init__(
        self,
        *,
        host: Host,
        store: Store,
        loop: Loop,
        registry: Registry,
        link_stats: LinkStats,
        incidents: Incidents,
        ladder: Ladder,
        settings: Settings,
        checks: CheckTimes,
        gates: Gates,
        database: Path,
    ) -> None:
        self._host = host
        self._store = store
        self._loop = loop
        self._registry = registry
        self._link_stats = link_stats
        self._incidents = incidents
        self._ladder = ladder
        self._settings = settings
        self._checks = checks
        self._gates = gates
        self._database = database
        self.repairs_before = RepairStatistics()
        """What an agent that was killed had counted: part of the statistics, not of /metrics."""
        self._started_wall = time.time()
        self._lag = 0.0
        self._to_restore = 0
        self._pending: set[InstanceId] = set()
        """Those of them that came to nothing yet."""

    def expect(self, instances: Iterable[InstanceId]) -> None:
        """These are to be looked at before the agent calls itself ready."""
        self._pending = set(instances)
        self._to_restore = len(self._pending)

    async def watch_lag(self) -> None:
        """How late the event loop comes back to a sleeper."""
        while True:
            begun = boot_now()
            # At a whole second, with the turns of the loop and the pulse of the host.
            wait = LAG_EVERY - begun % LAG_EVERY
            await asyncio.sleep(wait)
            self._lag = max(boot_now() - begun - wait, 0.0)

    def repairs(self) -> RepairStatistics:
        return self._ladder.statistics

    def status(self) -> AgentStatus:
        now = boot_now()
        ready, settled = self._brought_back()
        stats = self._store.stats
        return AgentStatus(
            version=VERSION,
            host=self._host.name,
            started_wall=self._started_wall,
            ready=ready,
            restoring=(settled, self._to_restore),
            passes_total=self._loop.passes,
            pass_seconds_total=self._loop.pass_seconds,
            last_pass_age=now - self._loop.turned_at,
            passes_late=self._loop.late,
            loop_lag=self._lag,
            db_writes=stats.writes,
            db_write_seconds=stats.write_seconds,
            db_errors={**_NO_ERRORS, **stats.errors},
            link_refusals={**_NO_REFUSALS, **self._link_stats.refused},
            dbus_connected=self._host.connected,
            jobs_pending=self._host.jobs_pending,
            incidents=self._incidents.members(),
            incident_reasons={
                group: one.code for group, one in self._incidents.active.items() if one.code
            },
            repairs=self.repairs(),
            repairs_before=self.repairs_before,
            durations=self._registry.durations,
            waiting_starts=self._gates.waiting,
            logins_left=self._gates.logins_left(now),
            db_bytes=_size_of(self._database),
            log_dropped=lines_lost(),
            checks=self._checks.all(),
            config_read_wall=self._settings.read_wall,
            config_refused=self._settings.refused,
            alive_limit=max(self._settings.config.health.interval, 30.0),
        )

    def _brought_back(self) -> tuple[bool, int]:
        """Whether a pass has seen every instance, and how many starts have an outcome. An outcome
        counts once: a session that drops later is no part of the start any more.
        """
        facts = self._registry.facts
        there = [(id, facts[id]) for id in self._pending if id in facts]
        self._pending = {id for id, one in there if not _is_settled(one)}
        return all(one.observed for _, one in there), self._to_restore - len(self._pending)


def _size_of(database: Path) -> int:
    """With what is written and not yet taken into it."""
    size = 0
    for name in (database.name, f"{database.name}-wal"):
        with contextlib.suppress(OSError):
            size += database.with_name(name).stat().st_size
    return size


def _is_settled(facts: Facts) -> bool:
    """A start that came to something, or none that is wanted."""
    on_its_way = (
        ConnectionStatus.INITIALIZING,
        ConnectionStatus.LOADING,
        ConnectionStatus.RECONNECTING,
    )
    return facts.observed and facts.record.status not in on_its_way
