"""Builds supervision from its parts."""

import random
from dataclasses import dataclass

from agent.clock import boot_now
from agent.config import Config
from agent.core.figures.trend import AllTrends
from agent.core.model import Happening, InstanceId
from agent.host.base import Host
from agent.supervise.agent_status import StatusFigures
from agent.supervise.backends.face import BackendFace
from agent.supervise.backends.passes import BackendPasses
from agent.supervise.backends.registry import RETRY_AFTER, Backends
from agent.supervise.copies.archives import Archives
from agent.supervise.copies.invites import Candidate, Invites
from agent.supervise.copies.schedule import SnapshotClock
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.loop import Loop
from agent.supervise.passes.act import Executor
from agent.supervise.passes.findings import PASSING, WITH_TEXT, Findings, passing_entry, text_entry
from agent.supervise.passes.lost_folder import FolderLooks
from agent.supervise.passes.observe import Observer
from agent.supervise.passes.record import Recorder
from agent.supervise.passes.repair import Ladder
from agent.supervise.passes.run import Passes
from agent.supervise.passes.wait_reasons import WaitReasons
from agent.supervise.periodic.carried import CarriedCounters
from agent.supervise.periodic.key_check import KeyCheck
from agent.supervise.periodic.learned import Learned
from agent.supervise.periodic.usage import UsageSampler
from agent.supervise.reach.watch import Reaching
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.checks import Checking
from agent.supervise.requests.confirming import has_pairing
from agent.supervise.requests.deletion import Deletion
from agent.supervise.requests.repairs import Repairs
from agent.supervise.settings import Settings
from agent.supervise.shared import Ground, Shared, build_shared
from agent.supervise.supervisor import Supervisor
from agent.supervise.turns.incidents import Incidents
from agent.supervise.turns.memory import MemoryRoom
from agent.supervise.turns.packs import Packs

PASSES_AT_ONCE = 256
BACKENDS_AT_ONCE = 64
CHECKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Supervision:
    settings: Settings
    registry: Registry
    loop: Loop
    sampler: UsageSampler
    incidents: Incidents
    figures: StatusFigures
    keeping: Snapshots
    supervisor: Supervisor
    handover: Learned
    carried: CarriedCounters
    snapshots: SnapshotClock
    backends: Backends
    backend_loop: Loop
    packs: Packs
    rounds: KeyCheck
    trends: AllTrends
    room: MemoryRoom
    reaching: Reaching
    seats: Host


def assemble(config: Config, ground: Ground) -> Supervision:
    base = build_shared(config, ground)
    settings, registry = base.settings, base.registry
    ladder = _ladder(base)
    passes = _passes(base, ladder)
    loop = _loop(base, passes)
    figures = StatusFigures(
        host=base.host,
        store=ground.store,
        loop=loop,
        registry=registry,
        link_stats=base.link_stats,
        incidents=base.incidents,
        ladder=ladder,
        settings=settings,
        checks=base.checks,
        gates=base.turns.gates,
        database=ground.store.path,
    )
    return Supervision(
        settings=settings,
        trends=base.trends,
        registry=registry,
        loop=loop,
        sampler=UsageSampler(
            registry,
            lambda: settings.config,
            limit=settings.memory_limit,
            well=base.incidents.well,
            wake=base.wake,
            checked=base.checks.note,
            note=base.notes.write,
        ),
        incidents=base.incidents,
        figures=figures,
        keeping=base.keeping,
        supervisor=_supervisor(base, ladder, passes, loop, figures),
        handover=Learned(ground.store, ladder, registry, base.trends),
        carried=CarriedCounters(ground.store, registry),
        snapshots=SnapshotClock(
            base.keeping, registry, config.session_root, lambda: settings.config.sessions
        ),
        backends=base.backends,
        backend_loop=Loop(
            ground.backend_wakes,
            BackendPasses(base.backends, base.adoption).run,
            parallel=BACKENDS_AT_ONCE,
            retry_after=lambda: RETRY_AFTER,
        ),
        packs=base.packs,
        rounds=KeyCheck(
            registry,
            policy=lambda: settings.config.crypto,
            statistics=lambda: ladder.statistics,
            wake=base.wake,
            checked=base.checks.note,
        ),
        room=base.turns.room,
        reaching=base.turns.reaching,
        seats=base.host,
    )


def _ladder(base: Shared) -> Ladder:
    settings, registry = base.settings, base.registry
    return Ladder(
        settings,
        Executor(base.host, base.session_root, base.keeping, registry.save, settings),
        base.incidents,
        WaitReasons(registry, base.backends, base.turns, base.incidents),
    )


def _passes(base: Shared, ladder: Ladder) -> Passes:
    settings, host = base.settings, base.host
    findings = Findings(settings)
    reaching, incidents = base.turns.reaching, base.incidents

    def failed(facts: Facts, code: str) -> None:
        reaching.failed(facts, code)
        incidents.failed(facts, code)

    def succeeded(facts: Facts) -> None:
        reaching.succeeded(facts)
        incidents.succeeded(facts)

    recorder = Recorder(
        settings.health_policy,
        host.boot_id(),
        host.name == "systemd",
        random.random,
        failed,
        succeeded,
    )
    return Passes(
        observer=_observer(base, findings),
        executor=ladder.executor,
        recorder=recorder,
        turns=base.turns,
        ladder=ladder,
        incidents=base.incidents,
        findings=findings,
        settings=settings,
        registry=base.registry,
        waits=ladder.waits,
    )


def _loop(base: Shared, passes: Passes) -> Loop:
    known = base.registry.facts

    async def run_pass(id: InstanceId) -> float | None:
        facts = known.get(id)
        return None if facts is None else await passes.run(facts)

    def lane_of(id: InstanceId) -> str:
        facts = known.get(id)
        return "" if facts is None else facts.instance.backend

    return Loop(
        base.ground.wakes,
        run_pass,
        parallel=PASSES_AT_ONCE,
        retry_after=lambda: base.settings.config.health.interval,
        lane_of=lane_of,
    )


def _supervisor(
    base: Shared, ladder: Ladder, passes: Passes, loop: Loop, figures: StatusFigures
) -> Supervisor:
    settings, registry, store = base.settings, base.registry, base.ground.store

    def forget(id: InstanceId) -> None:
        base.turns.forget(id)
        loop.forget(id)

    asking = Calls(registry, store, base.wake)
    checking = Checking(registry, passes, base.wake, at_once=CHECKS_AT_ONCE)
    return Supervisor(
        registry=registry,
        store=store,
        host=base.host,
        bus=base.ground.bus,
        wake=base.wake,
        room=base.turns.room,
        figures=figures,
        asking=asking,
        checking=checking,
        incidents=base.incidents,
        repairs=Repairs(
            registry=registry,
            host=base.host,
            ladder=ladder,
            incidents=base.incidents,
            checking=checking,
            wake=base.wake,
        ),
        keeping=base.keeping,
        moving=Archives(
            base.keeping,
            registry,
            store,
            base.host,
            base.session_root,
            invites=_invites(base),
            settings=lambda: settings.config.sessions,
            forget=forget,
            wake=base.wake,
        ),
        backends=BackendFace(base.backends, base.adoption, store),
        creation=base.creation,
        deletion=Deletion(
            registry=registry,
            store=store,
            host=base.host,
            session_root=base.session_root,
            wake=base.wake,
            forget=forget,
            let_go=base.adoption.let_go,
        ),
        trends=base.trends,
    )


def _invites(base: Shared) -> Invites:
    settings = base.settings

    def find(id: InstanceId) -> Candidate:
        return Candidate((facts := base.registry.get(id)).instance, has_pairing(facts))

    return Invites(
        base.ground.store,
        settings.config.agent.state_path / "pairing.key",
        find=find,
        seconds=lambda: settings.config.sessions.invite,
    )


def _observer(base: Shared, findings: Findings) -> Observer:
    settings, registry, bus = base.settings, base.registry, base.ground.bus

    def happened(facts: Facts, happening: Happening) -> None:
        if findings.note(facts, happening):
            base.wake(facts.id)
        registry.touch(facts)
        if happening.kind in WITH_TEXT:
            base.notes.write(text_entry(facts, happening))
        if happening.kind in PASSING and bus.wants(happening.kind):
            bus.publish_passing(passing_entry(facts, happening))

    return Observer(
        base.host,
        base.session_root,
        base.link_stats,
        base.wake,
        happened,
        backends=base.backends,
        settings=settings,
        checked=base.checks.note,
        first_probe=boot_now() + settings.config.start.first_check,
        folders=FolderLooks(base.session_root),
        attached=registry.tenure.attached,
    )
