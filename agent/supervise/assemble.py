"""Builds the parts of supervision, each once and with the earlier parts that it uses."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent.backends.declared import Backends
from agent.clock import boot_now
from agent.config.config import Config
from agent.config.tables import check_declared, declared_for, worker_settings
from agent.core.figures import open_trends
from agent.core.model import InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.host.base import Host
from agent.link.client import LinkStats
from agent.store.database import Store
from agent.supervise.agent_status import CheckTimes, StatusFigures
from agent.supervise.copies.schedule import SnapshotClock
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.gate import Gate
from agent.supervise.incidents import Incidents
from agent.supervise.loop import Loop, Wakes
from agent.supervise.passes.act import Executor
from agent.supervise.passes.findings import Findings, Happenings
from agent.supervise.passes.observe import Observer
from agent.supervise.passes.record import Recorder
from agent.supervise.passes.repair import Ladder
from agent.supervise.passes.run import Passes
from agent.supervise.periodic.upkeep import KeyCheck, Learned
from agent.supervise.periodic.usage import UsageSampler
from agent.supervise.reach import Reaching
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.deletion import Deletion
from agent.supervise.requests.orders import Creation, Orders
from agent.supervise.requests.repairs import Checking, Repairs
from agent.supervise.requests.set_up import SettingUp
from agent.supervise.seats import Packs, Seats
from agent.supervise.settings import Settings
from agent.supervise.story import Notes
from agent.supervise.views import ViewSources

PASSES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Ground:
    """What is open before supervision is built."""

    store: Store
    host: Host
    bus: EventBus
    wakes: Wakes
    open_packs: Callable[[], Awaitable[Host]]
    """Opens the host of the packs, when one is needed."""


class Supervision:
    """A reload changes `settings` only: the parts ask them when they need one."""

    def __init__(self, config: Config, ground: Ground) -> None:
        self.ground, self.settings = ground, Settings(config)
        self.root, self.wake = config.session_root, ground.wakes.wake
        self._facts: dict[InstanceId, Facts] = {}
        self._notes, self._link_stats, self._checks = Notes(ground.store), LinkStats(), CheckTimes()
        self.trends = open_trends()
        self._build_gate(config)
        self._build_sessions()
        self._build_passes()
        self._build_periodic()

    def _build_gate(self, config: Config) -> None:
        """What may have to be waited for."""
        settings, host, wake = self.settings, self.ground.host, self.wake
        self.backends = Backends(
            root=config.agent.state_path / "backends",
            instances=self._facts,
            store=self.ground.store,
            wake=wake,
            look_again=self._look_again,
            note=self._notes.write,
            breaker=lambda: settings.config.reconnect.breaker,
            crypto_patterns=config.crypto_patterns,
        )
        self.reaching = Reaching(
            session_root=self.root,
            boot_id=host.boot_id,
            wake=wake,
            told=self._take_news,
        )
        self.incidents = Incidents(
            lambda: settings.config.incident,
            self._facts,
            wake,
            self._notes.write,
            wanted=lambda its: its.desired(host.boot_id()).should_run,
            out_of_reach=self.reaching.away,
            way_out=lambda its: its.proxy if its.instance.backend else self.reaching.way_out(its),
            reconnect=lambda: settings.config.reconnect,
        )
        self.gate = Gate(
            settings=settings,
            backends=self.backends,
            reaching=self.reaching,
            incidents=self.incidents,
            wake=wake,
        )

    def _build_sessions(self) -> None:
        """The sessions, and those who act on them."""
        settings, store, root = self.settings, self.ground.store, self.root
        has, version = self.incidents.has, self.backends.server_version
        sources = ViewSources(self.ground.host, self.gate, settings, has, version)
        self.registry = Registry(store, sources, root, self._facts)
        self.on_kept: list[Callable[[InstanceId], None]] = []
        """Hear that a worker kept more messages, or was connected and may have."""
        self.on_forget: list[Callable[[InstanceId], None]] = []
        self.registry.of_wings = worker_settings(settings.config)
        self.registry.declared = lambda its: declared_for(settings.config, its)
        self.registry.check = lambda its, all: check_declared(settings.config, its, all)
        self.creation = Creation(
            registry=self.registry, backends=self.backends, gate=self.gate, wake=self.wake
        )
        self.backends.create = self.creation.create
        self.packs = Packs(
            open_host=self.ground.open_packs,
            size=settings.config.worker.pack,
            facts=self._facts,
            wake=self.wake,
            link_stats=self._link_stats,
        )
        self.seats = Seats(
            self.ground.host, self.packs, self.backends, self._facts, self.gate.queues.no_login
        )
        self.keeping = Snapshots(
            self.registry,
            store,
            self.seats,
            root,
            settings=lambda: settings.config.sessions,
            save_timeout=lambda: settings.config.stop.save,
            wake=self.wake,
        )

    def _build_passes(self) -> None:
        """What a pass runs through, and the loops that run passes."""
        settings, host, findings = self.settings, self.ground.host, Findings(self.settings)
        executor = Executor(self.seats, self.root, self.keeping, self.registry, settings)
        self.ladder = Ladder(settings, executor, self.incidents, self.gate)
        recorder = Recorder(
            settings.health_policy,
            host.boot_id(),
            host.name == "systemd",
            random.random,
            self._failed,
            self._succeeded,
        )
        self.passes = Passes(
            self._observer(findings),
            executor,
            recorder,
            self.gate,
            self.ladder,
            self.incidents,
            findings,
            settings,
            self.registry,
        )
        self.loop = Loop(
            self.ground.wakes,
            self._run_pass,
            parallel=PASSES_AT_ONCE,
            retry_after=lambda: settings.config.health.interval,
            lane_of=lambda id: its.instance.backend if (its := self._facts.get(id)) else "",
        )

    def _build_periodic(self) -> None:
        """What runs on a clock, and what goes on in the next agent."""
        settings, store, registry = self.settings, self.ground.store, self.registry
        self.figures = StatusFigures(
            host=self.ground.host,
            store=store,
            loop=self.loop,
            registry=registry,
            link_stats=self._link_stats,
            incidents=self.incidents,
            ladder=self.ladder,
            settings=settings,
            checks=self._checks,
            queues=self.gate.queues,
            database=store.path,
        )
        self.sampler = UsageSampler(
            registry,
            lambda: settings.config,
            limit=settings.memory_limit,
            well=self.incidents.well,
            wake=self.wake,
            checked=self._checks.note,
            note=self._notes.write,
        )
        self.rounds = KeyCheck(
            registry,
            policy=lambda: settings.config.crypto,
            statistics=lambda: self.ladder.statistics,
            wake=self.wake,
            checked=self._checks.note,
        )
        self.snapshots = SnapshotClock(
            self.keeping, registry, self.root, lambda: settings.config.sessions
        )
        self.handover = Learned(store, self.ladder, registry, self.trends)

    def _observer(self, findings: Findings) -> Observer:
        happenings = Happenings(
            self.on_kept, findings, self.registry, self._notes, self.ground.bus, self.wake
        )
        return Observer(
            self.seats,
            self.root,
            self._link_stats,
            self.wake,
            happenings.take,
            backends=self.backends,
            settings=self.settings,
            checked=self._checks.note,
            first_probe=boot_now() + self.settings.config.start.first_check,
            devices=self.registry.devices,
            attached=happenings.attached,
        )

    async def _run_pass(self, id: InstanceId) -> float | None:
        facts = self._facts.get(id)
        return None if facts is None else await self.passes.run(facts)

    def _look_again(self, id: InstanceId, outage: bool) -> None:
        if (facts := self._facts.get(id)) is not None:
            # Its delay dates from before its server was away.
            facts.next_probe, facts.asked.try_at_once = 0.0, True
            if outage:
                facts.run.claim, facts.run.probe = None, None
                facts.run.linked_since = boot_now()
            self.wake(id)

    def _take_news(self, back: bool, sessions: Sequence[Facts], entry: JournalEntry | None) -> None:
        """What the looks at addresses find."""
        if entry is not None:
            self._notes.write(entry)
        self.incidents.reach_changed(sessions, back=back)

    def _failed(self, facts: Facts, code: str) -> None:
        self.reaching.failed(facts, code)
        self.incidents.failed(facts, code)

    def _succeeded(self, facts: Facts) -> None:
        self.reaching.succeeded(facts)
        self.incidents.succeeded(facts)

    def forget(self, id: InstanceId) -> None:
        self.gate.forget(id)
        self.loop.forget(id)
        self.incidents.forget(id)
        for forget in self.on_forget:
            forget(id)


# The public face of supervision: all that the API may ask, by the part that answers.


class Supervisor:
    """Unknown ids raise NotFound."""

    def __init__(self, base: Supervision) -> None:
        registry, store, host, wake = base.registry, base.ground.store, base.ground.host, base.wake
        self.view, self.views = registry.view, registry.views
        self.status, self.history = base.figures.status, store.history
        self.bus, self.trends = base.ground.bus, base.trends
        self.keeping, self.creation = base.keeping, base.creation
        self.backends = base.backends
        self.asking = Calls(registry, store, wake)
        self.send, self.find = self.asking.send, self.asking.find
        self.checking = Checking(registry, base.passes, wake)
        self.orders = Orders(registry, base.seats, base.gate, self.asking, wake)
        self.repairs = Repairs(
            registry=registry,
            host=host,
            ladder=base.ladder,
            incidents=base.incidents,
            checking=self.checking,
            wake=wake,
        )
        self.deletion = Deletion(
            registry=registry,
            store=store,
            host=base.seats,
            session_root=base.root,
            wake=wake,
            forget=base.forget,
            let_go=base.backends.let_go,
        )
        self.setting_up = SettingUp(
            repairs=self.repairs,
            registry=registry,
            host=host,
            asking=self.asking,
            create=base.creation.create,
            enable=self.orders.enable,
        )
