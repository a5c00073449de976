"""The composition of supervision: each part is built once, with the earlier parts that it uses; and
what is done before the first pass and at a reload."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from agent import VERSION, clock
from agent.backends.declared import Backends
from agent.config.config import Config, Declaration
from agent.config.load import changes_that_need_restart
from agent.core import reasons, reconnect, session
from agent.core.model import Category, ConnectionStatus, Instance, InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.host.life import Host
from agent.log import about, bound, going_on, log
from agent.store.database import Store
from agent.supervise import calls, gate, orders, passes, reach, seats, snapshots, upkeep
from agent.supervise.facts import Facts, Notes, Settings, entry
from agent.supervise.record import Means
from agent.supervise.registry import Registry, is_written
from agent.vault import identity as files
from agent.vault.folders import Retired, list_trash


class Supervisor:
    """All that the API may ask, by the part that answers; unknown ids raise NotFound. A reload
    changes `settings` only: the parts ask them when they need one."""

    def __init__(
        self,
        config: Config,
        store: Store,
        host: Host,
        bus: EventBus,
        wakes: passes.Wakes,
        *,
        open_packs: Callable[[], Awaitable[Host]],
    ) -> None:
        """`open_packs` opens the host of the packs, when one is needed."""
        self.store, self.host, self.bus, self.history = store, host, bus, store.history
        self.settings = settings = Settings(config)
        self.root, self.wake = root, wake = config.session_root, wakes.wake
        self._facts: dict[InstanceId, Facts] = {}
        self._notes, boot = Notes(store), host.boot

        # Parts that a start may have to wait for
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
        self.reaching = reach.Reaching(root, wake, self._notes)
        parts = self._notes, self.reaching, self.backends
        self.incidents = gate.Incidents(settings, self._facts, wake, *parts)
        self.gate = gate.Gate(settings, self.backends, self.reaching, self.incidents, wake)

        # The sessions, where they run, and the copies of their files.
        self.registry = registry = Registry(store, self.gate, root, self._facts, boot=boot)
        self.view, self.views = registry.view, registry.views
        self.seats = seats.Seats(host, open_packs, config.worker.pack, self._facts, self.gate)
        self.keeping = snapshots.Snapshots(registry, self.seats)

        # The means of a pass, and the loop that runs passes
        works = registry, self.seats, self.keeping, self._notes, bus, self.gate, settings
        first, past_us = clock.boot_now() + config.start.first_check, host.name == "systemd"
        self.means = means = Means(*works, first_probe=first, operators_act_past_us=past_us)
        self.loop = passes.Loop(wakes, self._run_pass, settings, self._facts)

        # Work on a clock, with the statistics that the next agent goes on with
        self._started_wall, self._to_restore = time.time(), 0
        self._pending: set[InstanceId] = set()
        """Sessions to be restored whose start has not ended."""
        self.sampler = upkeep.UsageSampler(registry)
        self.upkeep = upkeep.Upkeep(registry)

        # Questions and orders of callers
        self.asking = calls.Calls(registry, self.keeping)
        self.send, self.find = self.asking.send, self.asking.find
        self.orders = orders.Orders(registry, self.seats, self.asking)
        self.backends.create, self.backends.look = self.orders.create, reach.look
        self.repairs = orders.Repairs(means, self.orders)

    def expect(self, instances: Iterable[InstanceId]) -> None:
        """`status` is ready only after a pass has seen all of these."""
        self._pending = set(instances)
        self._to_restore = len(self._pending)

    def status(self) -> dict[str, Any]:
        """The agent's own figures: does its loop turn (`alive`), are sessions brought back?
        `dbus_connected`: None on a host that has no D-Bus; `incidents`: for each group in use the
        code of its incident, "" = none; `settings_refused`: the last reload failed."""
        age, settings = clock.boot_now() - self.loop.turned_at, self.settings
        there = [self._facts[id] for id in self._pending if id in self._facts]
        # A start counts once, whatever the session does later.
        self._pending = {facts.id for facts in there if not facts.observed or facts.unsettled}
        total, left = self._to_restore, len(self._pending)
        return {
            "version": VERSION,
            "host": self.host.name,
            "started": session.wall_text(self._started_wall),
            "ready": all(facts.observed for facts in there),
            "restoring": {"done": total - left, "total": total},
            "passes": self.loop.passes,
            "pass_seconds_total": self.loop.pass_seconds,
            "last_pass_age_seconds": age,
            "dbus_connected": self.host.connected,
            "jobs_pending": self.host.jobs_pending,
            "incidents": self.incidents.codes(),
            "settings_read": session.wall_text(settings.read_wall),
            "settings_refused": settings.refused,
            "alive": age <= max(settings.config.health.interval, 30.0),
        }

    async def _run_pass(self, id: InstanceId) -> float | None:
        facts = self._facts.get(id)
        return None if facts is None else await passes.run_pass(self.means, facts)

    def _look_again(self, id: InstanceId, outage: bool) -> None:
        if (facts := self._facts.get(id)) is not None:
            # The session's delay dates from before its server was away.
            facts.next_probe, facts.asked.try_at_once = 0.0, True
            if outage:
                now = clock.boot_now()
                facts.run = replace(facts.run, claim=None, probe=None, linked_since=now)
            self.wake(id)


# Before the first pass: read instances, make missing ones, put all in line. The first pass adopts
# what still runs; what should run starts in its turn.


async def load_instances(registry: Registry, declared: Iterable[Declaration]) -> str | None:
    """Fill the registry; return the time of the last entry of the agent before this one."""
    left = max([it.wall for it in await registry.store.history(limit=1)], default=None)
    for instance, record in await registry.store.instances():
        # Runs that an older database names ended long ago, and not by an operator's hand.
        forgotten = replace(record, seen_run="", stopped_run="", restart_of="")
        registry.add(instance, forgotten if registry.store.lost else record)
    await _take_in_folders(registry)
    if not registry.gate.fleet.leased:  # else another machine may have them
        await create_declared(registry, declared)
    await _lay_out_missing(registry)
    return session.wall_text(left)


async def line_up(registry: Registry, own: seats.Seats, left: str | None) -> list[InstanceId]:
    """Mark sessions that wait for a start; all ids in the order of their first passes. `left`: as
    `load_instances` returned it."""
    running = {id for id, unit in (await own.list()).items() if unit.runs}
    for facts in list(registry.facts.values()):
        facts.enabled_by_operator = own.enabled_by_operator(facts)
        if facts.id in running:
            # Before the first pass: no other start may take its memory.
            registry.gate.promise(facts)
        elif facts.should_run and left and facts.record.status in ("CONNECTED", "QR_REQUIRED"):
            # Not counted as a loss: a session that comes back after the agent's own stop is no
            # reconnect, and a machine that boots is no storm.
            before, status = facts.record.status, ConnectionStatus.RECONNECTING
            facts.record = replace(facts.record, status=status, status_since_wall=time.time())
            said = f"the agent was away since {left}, and its worker with it"
            facts.note("status", said, status=status, before=before, unknown_since=left, asked=True)
    # Asked for together, so that one commit has all.
    await asyncio.gather(*(registry.save(it) for it in registry.facts.values() if it.unsaid))

    def place(facts: Facts) -> tuple[bool, float, str]:
        """First what runs (adopting costs nothing), then the rest by last activity."""
        active_wall = facts.record.status_since_wall if facts.record.paired else 0.0
        return facts.id not in running, -active_wall, facts.id

    ids = [facts.id for facts in sorted(registry.facts.values(), key=place)]
    await registry.hold_copies(ids)
    return ids


async def _take_in_folders(registry: Registry) -> None:
    """Compare each folder with its row: the newer wins, and both say the same from then on."""
    for folder in await asyncio.to_thread(files.scan, registry.root):
        if (facts := registry.facts.get(folder.id)) is None:
            await _take_in(registry, folder)
            continue
        path, engine = registry.root / folder.id, facts.instance.engine
        if folder.identity and (fault := files.names_other_engine(folder.identity, engine, path)):
            folder = replace(folder, identity=None, problem=fault)
        if folder.identity is None:
            more = "; the agent goes by the database" * (folder.code != files.OTHERS)
            bound(Category.SESSION, folder.id).error("%s%s", folder.problem, more)
        elif folder.identity.generation > facts.record.generation:
            await _follow_folder(registry, facts, folder.identity)
        else:
            facts.saved.identity = known = folder.identity
            if is_written(facts):  # what both say is kept once
                facts.saved.identity = replace(known, instance=facts.instance)


async def _take_in(registry: Registry, folder: files.Found) -> None:
    """A folder without a row: a creation that was cut short, or a folder moved here by hand. One
    whose identity file went with a lost database stays as it is: a person writes that file again.
    """
    if (identity := folder.identity) is None:
        left = f"the agent leaves the folder of {folder.id} alone: {folder.problem}"
        if folder.code in ("absent", "damaged"):
            left += "; write its version, id, engine and enabled into it, and start the agent again"
        log.error("%s", left, extra=about(folder.id))
        # Where no database was lost, it may be no session at all.
        registry.store.lost += f"; {left}" * bool(registry.store.lost)
        return
    sentence = "the agent adopted it from its session folder, which had no record"
    record = replace(identity.record, status_since_wall=time.time())
    said = JournalEntry("created", sentence, instance=folder.id, wall=time.time())
    await registry.store.add(identity.instance, record, said)
    registry.add(identity.instance, record).saved.identity = folder.identity


async def _follow_folder(registry: Registry, facts: Facts, identity: files.Identity) -> None:
    """The database is an older copy: take what the folder says."""
    before, written = facts.record, identity.record
    facts.instance = identity.instance
    revived = not written.reason and reasons.reason_of(before.reason).final
    record = reconnect.forgive(before) if revived else before
    newer = {name: getattr(written, name) for name in files.IN_RECORD}
    facts.record = replace(record, reason=written.reason or record.reason, **newer)
    facts.saved.identity = identity
    ahead = f"newer than the database (generation {identity.generation}, {before.generation})"
    takes = "the agent takes settings, pairing and operators' orders from it"
    facts.note("folder_newer", f"its folder is {ahead}: {takes}")
    await registry.save(facts)


async def create_declared(registry: Registry, declared: Iterable[Declaration]) -> None:
    """Make those that no machine has. One that cannot be created keeps no other session from
    running."""
    for row in declared:
        instance = Instance(row.id, row.engine, row.enabled, dict(row.settings), time.time())
        if row.id not in registry.facts and not registry.gate.fleet.has(row.id):
            with going_on("cannot create an instance that [[instance]] declares"):
                await registry.create(instance, "created because agent.toml declares it")


async def _lay_out_missing(registry: Registry) -> None:
    """A row without a folder: finish what was cut short; a lost pairing is never replaced."""
    in_trash: dict[InstanceId, Retired] = {}
    with going_on():
        # The newest of each name is listed first.
        in_trash = {it.id: it for it in (await asyncio.to_thread(list_trash, registry.root))[::-1]}
    for facts in list(registry.facts.values()):
        if (registry.root / facts.id).exists():
            continue
        retired = in_trash.get(facts.id)
        # A row of that name that is newer than the deletion is another instance's.
        newer = retired is not None and retired.at_wall < int(facts.instance.created_wall)
        if retired is not None and retired.why == "deleted" and not newer:
            words = "the agent finished its interrupted deletion"
            await registry.store.remove(facts.id, entry(facts, "deleted", words))
            registry.drop(facts)
        elif not facts.record.paired:
            await asyncio.to_thread(files.create, registry.root, facts.instance)
        else:
            missing = "the session folder of %s is missing; the agent does not start it"
            log.error(missing, facts.id, extra=about(facts.id))


async def take_on(config: Config, supervisor: Supervisor, started: Config) -> None:
    """Take on the settings; log the keys that wait for the agent's next start, as they are not as
    it `started`."""
    registry = supervisor.registry
    before = supervisor.settings.config
    supervisor.settings.take(config)
    for key in changes_that_need_restart(replace(started, backend=before.backend), config):
        log.warning("%s takes effect at the agent's next start", key)
    await supervisor.backends.take_on(config.backend)
    for declared in config.instance:
        if declared not in before.instance and declared.id in registry.facts:
            exists = "%s exists: [[instance]] applies at its creation only"
            log.warning(exists, declared.id, extra=about(declared.id))
    await create_declared(registry, config.instance)
    now, rules = clock.boot_now(), config.health
    for facts in registry.facts.values():
        registry.look_up(facts)
        with going_on("agent.toml does not fit a session"):
            if facts.instance.enabled:
                registry.check(facts.instance)
        # The next look was set by the old intervals, and may be far.
        facts.next_probe = min(facts.next_probe, now + rules.interval)
        facts.next_deep = min(facts.next_deep, now + rules.deep)
        supervisor.wake(facts.id)
