"""What deciding, acting and asking share, as one value."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config
from agent.core.figures.trend import AllTrends, open_trends
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.reasons import reason_of
from agent.deliver.bus import EventBus
from agent.host.base import Host
from agent.link.client import LinkStats
from agent.store.database import Store
from agent.supervise.agent_status import CheckTimes
from agent.supervise.backends.adoption import Adoption
from agent.supervise.backends.host import BackendHost
from agent.supervise.backends.registry import Backends
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.loop import Wakes
from agent.supervise.reach.watch import Reaching, ReachNews
from agent.supervise.registry import Registry
from agent.supervise.requests.creation import Creation
from agent.supervise.settings import Settings
from agent.supervise.story import Notes
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.memory import MemoryRoom
from agent.supervise.turns.packs import Packs
from agent.supervise.turns.queues import Queues
from agent.supervise.turns.turns import Turns
from agent.supervise.views import ViewSources


@dataclass(frozen=True, slots=True)
class Ground:
    store: Store
    host: Host
    backend_host: Host | None
    """Starts the workers of backends; None where none is declared."""
    bus: EventBus
    wakes: Wakes
    backend_wakes: Wakes
    open_packs: Callable[[], Awaitable[Host]]
    """Opens the host of the packs, when one is needed."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What deciding, acting and asking share; a reload changes `settings` only."""

    settings: Settings
    session_root: Path
    ground: Ground
    turns: Turns
    registry: Registry
    backends: Backends
    creation: Creation
    adoption: Adoption
    packs: Packs
    host: Host
    """Local workers and seats with backends alike."""
    incidents: Incidents
    keeping: Snapshots
    notes: Notes
    link_stats: LinkStats
    checks: CheckTimes
    trends: AllTrends

    def wake(self, id: InstanceId) -> None:
        self.ground.wakes.wake(id)


def build_shared(config: Config, ground: Ground) -> Shared:
    settings, wake = Settings(config), ground.wakes.wake
    facts: dict[InstanceId, Facts] = {}
    notes, link_stats = Notes(ground.store), LinkStats()
    reaching = Reaching(
        policy=lambda: settings.config.reconnect.reach,
        session_root=config.session_root,
        wake=wake,
        wanted=lambda its: _waits_for_its_address(its, ground.host),
    )
    backends = Backends(
        host=ground.backend_host,
        root=config.backends_root,
        wakes=ground.backend_wakes,
        facts=facts,
        wake=wake,
        note=notes.write,
        link_stats=link_stats,
        settings=lambda: settings.config.backends,
        breaker=lambda: settings.config.reconnect.breaker,
        crypto_patterns=config.crypto.patterns,
    )
    incidents = Incidents(
        lambda: settings.config.incident_policy,
        facts,
        wake,
        notes.write,
        out_of_reach=reaching.away,
        way_out=lambda its: its.proxy if its.instance.backend else reaching.way_out(its),
        reconnect=lambda: settings.config.reconnect,
    )
    _pass_news_on(reaching, backends, incidents, notes)
    room = _room(settings, ground.host, wake)
    turns = Turns(_gates(settings, wake), room, reaching, backends.ask, backends.why_away)
    sources = ViewSources(ground.host, turns, settings, incidents.has, backends.server_version)
    registry = Registry(ground.store, sources, config.session_root, facts)
    creation = Creation(registry=registry, backends=backends, room=room, wake=wake)
    adoption = Adoption(
        backends,
        facts,
        ground.store,
        creation.create,
        discover_every=lambda: settings.config.backends.discover,
    )
    packs = Packs(
        open_host=ground.open_packs,
        size=lambda: settings.config.worker.pack,
        session_root=config.session_root,
        facts=facts,
    )
    host = BackendHost(ground.host, backends, facts.get, turns.gates.no_login, packs)
    keeping = Snapshots(
        registry,
        ground.store,
        host,
        config.session_root,
        settings=lambda: settings.config.sessions,
        save_timeout=lambda: settings.config.stop.save,
        wake=wake,
    )
    return Shared(
        settings=settings,
        session_root=config.session_root,
        ground=ground,
        turns=turns,
        registry=registry,
        backends=backends,
        creation=creation,
        adoption=adoption,
        packs=packs,
        host=host,
        incidents=incidents,
        keeping=keeping,
        notes=notes,
        link_stats=link_stats,
        checks=CheckTimes(),
        trends=open_trends(config.api.history),
    )


def _pass_news_on(
    reaching: Reaching, backends: Backends, incidents: Incidents, notes: Notes
) -> None:
    """Hand on what the looks at addresses find."""

    def take_news(news: ReachNews) -> None:
        if news.entry is not None:
            notes.write(news.entry)
        incidents.reach_changed(news.sessions, back=news.back)

    reaching.on_news.append(take_news)
    reaching.on_route.append(backends.look_now)


def _waits_for_its_address(facts: Facts, host: Host) -> bool:
    record = facts.record
    if facts.gone or record.status is ConnectionStatus.CONNECTED:
        return False
    return facts.desired(host.boot_id()).should_run and not reason_of(record.reason).hopeless


def _gates(settings: Settings, wake: Callable[[InstanceId], None]) -> Queues:
    return Queues(
        settings.start_policy,
        settings.remote_start_policy,
        wake=wake,
        idle=settings.machine_is_idle,
        jitter=lambda: random.uniform(0.0, settings.config.start.spread),
    )


def _room(settings: Settings, host: Host, wake: Callable[[InstanceId], None]) -> MemoryRoom:
    return MemoryRoom(
        limit=settings.memory_limit,
        budget=settings.memory_budget,
        wanted=lambda facts: facts.desired(host.boot_id()).should_run,
        wake=wake,
    )
