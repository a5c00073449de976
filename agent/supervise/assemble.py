"""The composition of supervision: each part is built once, with the earlier parts that it uses."""

import random
from collections.abc import Awaitable, Callable, Sequence

from agent.backends.declared import Backends
from agent.clock import boot_now
from agent.config.config import Config
from agent.core.model import InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.host.life import Host
from agent.link.client import LinkStats
from agent.store.database import Store
from agent.supervise.agent_status import StatusFigures
from agent.supervise.facts import Facts
from agent.supervise.gate import Gate
from agent.supervise.incidents import Incidents
from agent.supervise.loop import Loop, Wakes
from agent.supervise.passes.act import Executor
from agent.supervise.passes.findings import Findings
from agent.supervise.passes.observe import Observer
from agent.supervise.passes.record import Recorder
from agent.supervise.passes.repair import Ladder
from agent.supervise.passes.run import Passes
from agent.supervise.reach import Reaching
from agent.supervise.registry import Registry
from agent.supervise.requests.calls import Calls
from agent.supervise.requests.deletion import Deletion
from agent.supervise.requests.orders import Orders
from agent.supervise.requests.repairs import Repairs
from agent.supervise.seats import Packs, Seats
from agent.supervise.settings import Settings
from agent.supervise.snapshots import Snapshots
from agent.supervise.story import Notes
from agent.supervise.upkeep import Upkeep
from agent.supervise.usage import UsageSampler

PASSES_AT_ONCE = 256


class Supervisor:
    """All that the API may ask, by the part that answers; unknown ids raise NotFound. A reload
    changes `settings` only: the parts ask them when they need one."""

    def __init__(
        self,
        config: Config,
        store: Store,
        host: Host,
        bus: EventBus,
        wakes: Wakes,
        *,
        open_packs: Callable[[], Awaitable[Host]],
    ) -> None:
        """`open_packs` opens the host of the packs, when one is needed."""
        self.store, self.host, self.bus, self.history = store, host, bus, store.history
        self.settings = settings = Settings(config)
        self.root, self.wake = root, wake = config.session_root, wakes.wake
        self._facts: dict[InstanceId, Facts] = {}
        self._notes, links = Notes(store), LinkStats()
        boot = host.boot_id()

        # What a start may have to wait for.
        self.backends = Backends(
            root=config.agent.state_path / "backends",
            instances=self._facts,
            store=store,
            wake=wake,
            look_again=self._look_again,
            note=self._notes.write,
            breaker=lambda: settings.config.reconnect.breaker,
            crypto_patterns=config.crypto_patterns,
        )
        self.reaching = Reaching(session_root=root, wake=wake, told=self._take_news)
        self.incidents = Incidents(
            settings, self._facts, wake, self._notes, self.reaching, self.backends
        )
        self.gate = Gate(
            settings=settings,
            backends=self.backends,
            reaching=self.reaching,
            incidents=self.incidents,
            wake=wake,
        )

        # The sessions, where they run, and the copies of their files.
        self.registry = registry = Registry(store, self.gate, root, self._facts, boot=boot)
        self.view, self.views = registry.view, registry.views
        self.packs = Packs(open_packs, config.worker.pack, self._facts, wake, links)
        self.seats = Seats(host, self.packs, self.backends, self._facts, self.gate.queues)
        self.keeping = Snapshots(registry, self.seats)

        # What a pass runs through.
        executor = Executor(self.seats, self.keeping, registry)
        self.ladder = Ladder(executor, self.gate)
        recorder = Recorder(self.gate, host.name == "systemd", random.random, registry.reconnects)
        self.on_kept: list[Callable[[InstanceId], None]] = []
        """Hear that a worker kept more messages, or was connected and may have."""
        findings = Findings(settings, self.on_kept, self._notes, bus, wake)
        first_probe = boot_now() + config.start.first_check
        observer = Observer(self.seats, root, links, self.gate, findings, first_probe)
        self.passes = Passes(observer, executor, recorder, self.gate, self.ladder, findings)
        self.loop = Loop(
            wakes,
            self._run_pass,
            parallel=PASSES_AT_ONCE,
            retry_after=lambda: settings.config.health.interval,
            lane_of=lambda id: its.instance.backend if (its := self._facts.get(id)) else "",
        )

        # What runs on a clock, and what goes on in the next agent.
        self.figures = StatusFigures(host, self.loop, registry, links)
        self.status = self.figures.status
        self.sampler = UsageSampler(registry, self._notes)
        self.upkeep = Upkeep(self.ladder, registry)

        # What callers ask for.
        self.asking = Calls(registry, self.keeping)
        self.send, self.find = self.asking.send, self.asking.find
        self.orders = Orders(registry, self.seats, self.asking)
        self.backends.create = self.orders.create
        self.repairs = Repairs(registry, self.ladder, self.passes, self.asking, self.orders)
        self.on_forget: list[Callable[[InstanceId], None]] = [
            self.gate.forget,
            self.loop.forget,
            self.incidents.forget,
        ]
        self.deletion = Deletion(registry, self.seats, self.keeping, self.forget)

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

    def forget(self, id: InstanceId) -> None:
        for forget in self.on_forget:
            forget(id)
