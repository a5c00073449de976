"""Builds supervision from its parts, once; the one place that knows them all."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from agent.config import Config
from agent.core.admission import StartPolicy
from agent.core.model import Happening, InstanceId
from agent.core.trend import Trends
from agent.deliver.bus import EventBus
from agent.host.base import Host
from agent.link.client import LinkStats
from agent.store.database import Store
from agent.supervise.asking import Asking
from agent.supervise.backends import Backends
from agent.supervise.check_times import CheckTimes
from agent.supervise.checking import Checking
from agent.supervise.discovery import BackendFace
from agent.supervise.execute import Hands
from agent.supervise.facts import Facts
from agent.supervise.gate import Gates, LoginBudget, StartGate
from agent.supervise.handover import Handover
from agent.supervise.incidents import Incidents
from agent.supervise.keeping import Keeping
from agent.supervise.loop import Loop, Wakes, boot_now
from agent.supervise.moving import Moving
from agent.supervise.observe import Senses, desired_of
from agent.supervise.own_status import OwnFigures
from agent.supervise.passes import Passes
from agent.supervise.registry import Registry
from agent.supervise.remember import Rememberer
from agent.supervise.repairing import Ladder
from agent.supervise.repairs import Repairs
from agent.supervise.room import Room
from agent.supervise.rounds import Rounds
from agent.supervise.sampling import Sampler
from agent.supervise.seats import Seats
from agent.supervise.settings import Settings
from agent.supervise.show import Eyes
from agent.supervise.signals import PASSING, Findings, passing_entry, step_entry
from agent.supervise.snapshot_clock import SnapshotClock
from agent.supervise.supervisor import Supervisor
from agent.supervise.turns import Turns

PASSES_AT_ONCE = 256
CHECKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the daemon runs."""

    settings: Settings
    registry: Registry
    loop: Loop
    sampler: Sampler
    incidents: Incidents
    figures: OwnFigures
    supervisor: Supervisor
    handover: Handover
    snapshots: SnapshotClock
    backends: Backends
    rounds: Rounds
    trends: Trends
    room: Room
    seats: Host
    """The host as everybody above it sees it: local workers and seats with backends."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What supervision stands on."""

    store: Store
    host: Host
    backend_host: Host | None
    """Starts the workers of backends; None where none is declared."""
    bus: EventBus
    wakes: Wakes
    backend_wakes: Wakes


def assemble(config: Config, ground: Ground) -> Supervision:
    settings = Settings(config)
    store, bus, wakes = ground.store, ground.bus, ground.wakes
    turns = Turns(_gates(settings, wakes.wake), _room(settings, ground.host, wakes.wake))
    eyes = Eyes(
        ground.host,
        turns,
        breaker_policy=lambda: settings.config.breaker_policy,
        crypto_policy=lambda: settings.config.crypto_policy,
        memory_limit=settings.memory_limit,
        in_incident=lambda facts: incidents.has(facts),  # noqa: PLW0108 - made below
        server_version=lambda name: backends.server_version(name),  # noqa: PLW0108 - made below
    )
    checks = CheckTimes()
    registry = Registry(store, eyes, config.session_root)
    trends = Trends(config.api.history)
    link_stats = LinkStats()
    backends = Backends(
        host=ground.backend_host,
        root=config.backends_root,
        wakes=ground.backend_wakes,
        facts=registry.facts,
        wake=wakes.wake,
        note=registry.note,
        link_stats=link_stats,
        settings=lambda: settings.config.backends,
        breaker=lambda: settings.config.breaker_policy,
        crypto_patterns=config.crypto.patterns,
    )
    host = Seats(ground.host, backends, registry.facts.get, turns.gates.no_login)
    incidents = Incidents(
        lambda: settings.config.incident_policy,
        registry.facts,
        wakes.wake,
        registry.note,
    )
    findings = Findings(
        crypto_policy=lambda: settings.config.crypto_policy,
        memory_policy=lambda: settings.config.memory_policy,
        memory_limit=settings.memory_limit,
        silence_policy=lambda: settings.config.silence_policy,
        crypto_patterns=lambda: settings.config.crypto_patterns,
        error_limit=lambda: settings.config.alerts.error_rate,
    )
    keeping = Keeping(
        registry,
        store,
        host,
        config.session_root,
        settings=lambda: settings.config.sessions,
        save_timeout=lambda: settings.config.stop.save,
        wake=wakes.wake,
    )
    ladder = Ladder(
        policy=lambda: settings.config.recovery_policy,
        crypto_policy=lambda: settings.config.crypto_policy,
        host=host,
        session_root=config.session_root,
        keeper=keeping,
        incidents=incidents,
        save=registry.save,
        hold=backends.hold,
        turns=turns,
    )
    passes = Passes(
        senses=_senses(
            settings,
            host,
            registry=registry,
            link_stats=link_stats,
            wake=wakes.wake,
            findings=findings,
            bus=bus,
            backends=backends,
            checks=checks,
        ),
        hands=Hands(
            host, config.session_root, settings.limits, lambda: settings.config.health.timeout
        ),
        rememberer=Rememberer(
            settings.health_policy,
            host.boot_id(),
            host.name == "systemd",
            random.random,
            incidents.failed,
            incidents.succeeded,
        ),
        turns=turns,
        ladder=ladder,
        incidents=incidents,
        findings=findings,
        policy=settings.health_policy,
        offer_new_qr=lambda: settings.config.sessions.on_logout == "qr",
        save=registry.save,
        touch=registry.touch,
    )

    async def run_pass(id: InstanceId) -> float | None:
        facts = registry.facts.get(id)
        return None if facts is None else await passes.run(facts)

    def lane_of(id: InstanceId) -> str:
        facts = registry.facts.get(id)
        return "" if facts is None else facts.instance.backend

    loop = Loop(
        wakes,
        run_pass,
        parallel=PASSES_AT_ONCE,
        retry_after=lambda: settings.config.health.interval,
        lane_of=lane_of,
    )
    figures = OwnFigures(
        host=host,
        store=store,
        loop=loop,
        registry=registry,
        link_stats=link_stats,
        incidents=incidents,
        ladder=ladder,
        settings=settings,
        checks=checks,
    )

    def forget(id: InstanceId) -> None:
        turns.forget(id)
        loop.forget(id)

    moving = Moving(
        keeping,
        registry,
        store,
        host,
        config.session_root,
        settings=lambda: settings.config.sessions,
        forget=forget,
        wake=wakes.wake,
    )
    asking = Asking(registry, store, wakes.wake)
    face = BackendFace(
        backends,
        registry.facts,
        store,
        discover_every=lambda: settings.config.backends.discover,
    )
    checking = Checking(registry, passes, wakes.wake, at_once=CHECKS_AT_ONCE)
    supervisor = Supervisor(
        registry=registry,
        store=store,
        host=host,
        session_root=config.session_root,
        bus=bus,
        wakes=wakes,
        loop=loop,
        turns=turns,
        figures=figures,
        asking=asking,
        checking=checking,
        repairs=Repairs(
            registry=registry,
            host=host,
            ladder=ladder,
            incidents=incidents,
            checking=checking,
            asking=asking,
            wake=wakes.wake,
        ),
        keeping=keeping,
        moving=moving,
        backends=face,
        trends=trends,
    )
    face.create = supervisor.create
    sampler = Sampler(
        registry,
        lambda: settings.config,
        policy=lambda: settings.config.memory_policy,
        limit=settings.memory_limit,
        well=incidents.well,
        wake=wakes.wake,
        checked=checks.note,
    )
    handover = Handover(store, ladder, registry)
    snapshots = SnapshotClock(
        keeping, registry, config.session_root, lambda: settings.config.sessions
    )
    return Supervision(
        settings=settings,
        trends=trends,
        registry=registry,
        loop=loop,
        sampler=sampler,
        incidents=incidents,
        figures=figures,
        supervisor=supervisor,
        handover=handover,
        snapshots=snapshots,
        backends=backends,
        rounds=Rounds(
            registry,
            every=lambda: settings.config.crypto.round,
            policy=lambda: settings.config.crypto_policy,
            statistics=lambda: ladder.statistics,
            wake=wakes.wake,
            checked=checks.note,
        ),
        room=turns.room,
        seats=host,
    )


def _gates(settings: Settings, wake: Callable[[InstanceId], None]) -> Gates:
    budget = LoginBudget(settings.start_policy)

    def gate(policy: Callable[[], StartPolicy]) -> StartGate:
        return StartGate(
            policy,
            budget,
            wake=wake,
            idle=settings.machine_is_idle,
            jitter=lambda: random.uniform(0.0, settings.config.start.spread),
        )

    return Gates(gate(settings.start_policy), lambda: gate(settings.remote_start_policy), budget)


def _room(settings: Settings, host: Host, wake: Callable[[InstanceId], None]) -> Room:
    return Room(
        limit=settings.memory_limit,
        budget=settings.memory_budget,
        wanted=lambda facts: desired_of(facts, host).should_run,
        wake=wake,
    )


def _senses(
    settings: Settings,
    host: Host,
    *,
    registry: Registry,
    link_stats: LinkStats,
    wake: Callable[[InstanceId], None],
    findings: Findings,
    bus: EventBus,
    backends: Backends,
    checks: CheckTimes,
) -> Senses:
    def happened(facts: Facts, happening: Happening) -> None:
        if findings.note(facts, happening):
            wake(facts.id)
        registry.touch(facts)
        if happening.kind == "repair_step":
            registry.note(step_entry(facts, happening))
        if happening.kind in PASSING and bus.wants(happening.kind):
            bus.publish_passing(passing_entry(facts, happening))

    return Senses(
        host,
        settings.config.session_root,
        link_stats,
        wake,
        happened,
        backends=backends,
        health=lambda: settings.config.health,
        disk_free=lambda: settings.config.start.disk_free,
        checked=checks.note,
        first_probe=boot_now() + settings.config.start.first_check,
    )
