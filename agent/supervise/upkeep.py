"""On a clock: the trash is emptied, the database is checked and copied, the watchdog is fed,
memory is measured."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace

import aiohttp
import msgspec
import sdnotify

from agent import errors, logfiles
from agent.clock import boot_now, until_next
from agent.core.figures import HOURS, Inbound, RepairStatistics
from agent.core.memory import decide_memory, note_memory
from agent.core.model import Category, ConnectionStatus, InstanceId
from agent.core.session import Session
from agent.host import machine, notify
from agent.log import bound, going_on, log
from agent.store.database import Store
from agent.supervise import passes, reach, record
from agent.supervise.facts import Facts, Settings
from agent.supervise.registry import Registry
from agent.vault.folders import list_trash, sweep
from agent.vault.snapshots import sweep_snapshots

SWEEP_EVERY, FIRST_COPY, CHECK_EVERY = 3600.0, 300.0, 86400.0

# A table, kept apart from the agent's own log lines.
logging.getLogger(logfiles.PERFORMANCE).propagate = False


def performance_line(view: Session) -> str:
    mean = "-" if view.response_seconds is None else f"{view.response_seconds:.4f}"
    figures = {
        "status": view.status.value,
        "verdict": view.verdict.health.value,
        "uptime_seconds": view.uptime,
        "messages": view.counters.messages["in"] + view.counters.messages["out"],
        "messages_per_minute": sum(view.messages_per_minute.values()),
        "response_seconds": mean,
        "errors": sum(view.counters.errors.values()),
        "reconnects": sum(view.counters.by_word["reconnects"].values()),
        "memory_bytes": "-" if view.run.memory_bytes is None else view.run.memory_bytes,
        "cpu_seconds": "-" if view.run.cpu_seconds is None else f"{view.run.cpu_seconds:.2f}",
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())


# Statistics and usual message rates that the next agent goes on with. The agent writes them each
# hour and at the stop; a kill loses an hour of counting.

LEARNED = "learned"
"""The row in the database."""


class Statistics(msgspec.Struct, frozen=True):
    statistics: RepairStatistics
    inbound: dict[InstanceId, Inbound]


@dataclass(slots=True, eq=False, repr=False)
class Upkeep:
    """Does what is done on a clock; each loop is a task of the agent's."""

    registry: Registry

    async def take_over(self) -> None:
        """Read the kept statistics. Unreadable ones are dropped: only statistics and usual rates
        depend on them."""
        self.registry.statistics = RepairStatistics(since_wall=time.time())
        if (text := await self.registry.store.get_fact(LEARNED)) is None:
            return
        try:
            kept = msgspec.json.decode(text, type=Statistics)
        except (msgspec.DecodeError, RecursionError) as error:
            log.warning("cannot read the kept statistics, they begin at 0: %s", error)
            return
        self.registry.statistics = kept.statistics
        for facts in self.registry.facts.values():
            inbound = kept.inbound.get(facts.id)
            facts.inbound = inbound if inbound and len(inbound.rates) == HOURS else facts.inbound

    async def keep(self) -> None:
        """Keep the statistics. Never raises: their loss is not worth a failed stop."""
        all_facts = list(self.registry.facts.values())
        inbound = {each.id: each.inbound for each in all_facts if each.inbound != Inbound()}
        kept = msgspec.json.encode(Statistics(self.registry.statistics, inbound))
        with going_on("cannot write the learned statistics"):
            await self.registry.store.put_facts({LEARNED: kept.decode()})

    async def sweep_trash(self) -> None:
        """Delete retired sessions whose days are over, and snapshots that belong to no session or
        are not whole; write what was learned."""
        swept = now = boot_now()
        while True:
            days = self.registry.settings.config.sessions.trash_days
            root, keep, passed = self.registry.root, days * 86400, now - swept
            with going_on():
                for name in await asyncio.to_thread(sweep, root, keep, passed):
                    log.info("removed %s from the trash, where it was for %g days", name, days)
                trash = await asyncio.to_thread(list_trash, root)
                # A session in the trash can come back: it keeps its snapshots.
                known = {*self.registry.facts, *(retired.id for retired in trash)}
                for name in await asyncio.to_thread(sweep_snapshots, root, known, keep, passed):
                    log.info("removed the snapshot %s", name)
                swept = now
            await asyncio.sleep(SWEEP_EVERY)
            await self.keep()
            now = boot_now()

    async def check_database(self) -> None:
        """Once a day make the full check, which each start makes too, and a verified copy."""
        await asyncio.sleep(FIRST_COPY)
        while True:
            problem = await self.registry.store.check()
            state = self.registry.settings.config.agent.state_path
            if problem == "ok":
                with going_on():
                    await self.registry.store.copy_to(state / "agent.db.copy")
            else:
                damaged = "the database is damaged: %s; the agent rebuilds it at its next start"
                log.error(damaged, problem)
            await asyncio.sleep(CHECK_EVERY)

    async def report_keys(self) -> None:
        """Log what became of failing keys since the last such line. The passes repair them."""
        before = replace(self.registry.statistics)
        while True:
            await asyncio.sleep(self.registry.settings.config.crypto.round)
            policy, now = self.registry.settings.config.crypto, self.registry.statistics
            every = self.registry.facts.values()
            fail = sum(record.judge_keys(it, policy, boot_now()).signal is not None for it in every)
            line = "key check: %d sessions, the keys of %d fail; since the last check %d repaired"
            repaired = now.repaired + now.cleaned - before.repaired - before.cleaned
            figures = len(every), fail, repaired, now.failed - before.failed
            bound(Category.CRYPTO).info(f"{line}, %d repairs failed", *figures)
            before = replace(now)

    async def log_performance(self) -> None:
        while True:
            await asyncio.sleep(self.registry.settings.config.log.performance_interval)
            if not logging.getLogger(logfiles.PERFORMANCE).handlers:
                continue
            for number, (id, view) in enumerate(sorted(self.registry.views().items())):
                bound(Category.SYSTEM, id, logfiles.PERFORMANCE).info("%s", performance_line(view))
                if number % 100 == 99:
                    await asyncio.sleep(0)  # thousands of lines must not block the loop


# The agent's link in the chain of watchdogs: fed by completed passes, never by a timer alone.
# sdnotify's socket does not block: a manager that reads nothing must not stop the agent.

LONGEST_PASS = 180.0
"""Seconds: a start or a stop with a long save takes its time, and many may do so at once."""

UNASKED = 32.0
"""Seconds within which a manager wants a ping, if none names its own time."""
BEAT_EVERY, WITHIN = 60.0, aiohttp.ClientTimeout(total=10.0)


class Watchdog:
    def __init__(self, loop: passes.Loop, store: Store, settings: Settings) -> None:
        self._loop, self._store, self._settings = loop, store, settings
        self._in_time = True
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def say(self, message: str) -> None:
        self._notifier.notify(message)

    async def run(self) -> None:
        """Ping as long as passes complete in time; log when they do not."""
        interval = (notify.watchdog_from(os.environ, os.getpid()) or UNASKED) / 2
        while True:
            if (late := await self._what_is_late(interval)) is None:
                self.say("WATCHDOG=1")
            elif self._in_time:
                log.error("the agent sends no watchdog ping: %s", late)
            self._in_time = late is None
            await asyncio.sleep(until_next(interval / 2))

    async def beat(self) -> None:
        """Send a GET each minute while passes complete in time. The address is a secret."""
        failed = False
        while True:
            await asyncio.sleep(BEAT_EVERY)
            if not self._in_time or not (url := self._settings.config.heartbeat.url):
                continue
            try:
                async with aiohttp.request("GET", url, timeout=WITHIN) as answer:
                    cause = "" if answer.ok else f"HTTP {answer.status}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                cause = reach.cause_of(error)
            if cause and not failed:
                log.warning("the address of [heartbeat] url does not take the heartbeat: %s", cause)
            failed = bool(cause)

    async def _what_is_late(self, limit: float) -> str | None:
        """Make a round through loop and database; return the part that did not answer, if any."""
        turned = boot_now() - self._loop.turned_at
        if turned > max(limit, 2 * passes.TURN):
            return f"the loop of passes has not turned for {turned:.0f} s"
        blocked = self._loop.blocked(boot_now())
        if blocked > max(limit, LONGEST_PASS):
            return f"no pass has ended for {blocked:.0f} s while others wait"
        try:
            async with asyncio.timeout(limit):
                await self._store.answers()
        except TimeoutError:
            return f"the database has not answered for {limit:.0f} s"
        return None


LOOK_FOR_NEW = 8.0
FRESH = 5.0
"""Seconds for which the figures of a look at one instance are shown again."""
WATCHED = 15.0
"""Seconds between two looks while a client, as the dashboard, asks for the figures."""
SETTLED = 10.0
"""Seconds of a worker's life before it is first measured, more or less."""

ASKED_AT_ONCE = 16
"""Workers that are asked for their own figures at the same time."""
MOST = 1 << 50
"""A larger number is no figure of a process."""


@dataclass(slots=True, eq=False, repr=False)
class UsageSampler:
    """Measures all workers; frees caches and restarts, one at a time."""

    registry: Registry
    _watched_until: float = field(init=False, default=0.0)

    async def run(self) -> None:
        await asyncio.sleep(self.registry.settings.config.start.first_check)
        while True:
            await self._measure(list(self.registry.facts.values()), trend=True)
            await self.care()
            looked = boot_now()
            # Read each time: a reload may have changed it.
            while (left := looked + self.registry.settings.config.memory.interval - boot_now()) > 0:
                await asyncio.sleep(min(left, until_next(LOOK_FOR_NEW)))
                await self._measure(self._due())

    def watch(self) -> None:
        """A client asked for the figures of all instances: keep them fresh for a while."""
        self._watched_until = boot_now() + 2 * WATCHED

    async def measure_now(self, id: InstanceId) -> None:
        """Measure one instance, unless that was done a moment ago."""
        facts = self.registry.facts.get(id)
        if facts is not None and boot_now() - facts.run.measured_at > FRESH:
            await self._measure([facts])

    def _due(self) -> list[Facts]:
        """Return workers that began since the last look, once each; all while a client watches."""
        now = boot_now()
        since = now - WATCHED if now < self._watched_until else 0.0
        unseen = [facts for facts in self.registry.facts.values() if facts.run.measured_at <= since]
        return [it for it in unseen if it.unit.runs and (since or it.unit.since <= now - SETTLED)]

    async def _measure(self, every: Collection[Facts], *, trend: bool = False) -> None:
        """Measure workers. Without `trend` for display only: a fresh one would make the trend
        steeper."""
        wanted: dict[InstanceId, int] = {}
        measures = self.registry.settings.config.memory.measure
        for facts in every:
            if measures and facts.unit.runs and facts.unit.main_pid:
                wanted[facts.id], facts.run.measured_at = facts.unit.main_pid, boot_now()
        found = await measure_whole(wanted, self.registry.facts) if wanted else {}
        for facts in every:
            if facts.gone or not (trend or facts.id in found):
                continue
            run, usage = facts.run, found.get(facts.id, machine.UNSEEN)
            spent = usage.cpu_seconds
            if facts.pack and spent is not None:
                # A session's part of its pack is smaller once another one joins; a counter does not
                # go back.
                spent = max(spent, run.cpu_seconds or 0.0)
            run.memory_bytes, run.cpu_seconds = usage.memory_bytes, spent
            run.processes = usage.processes
            if trend and usage.memory_bytes is not None:
                policy, before = self.registry.settings.config.memory, run.memory_history
                run.memory_history = note_memory(before, usage.memory_bytes, policy, boot_now())

    async def care(self) -> None:
        """First ask engines to free caches; then at most one graceful restart at a time."""
        settings, now, every = self.registry.settings, boot_now(), self.registry.facts.values()
        seen = [each for each in every if each.run.memory_bytes is not None and each.unit.runs]
        for each in seen:
            each.memory_limit = settings.memory_limit(each)
        restarting = {each.id for each in seen if each.action.task or each.asked.restart_for}
        # A start of one member gives nothing of its pack's memory back, and in an incident a
        # restarted session would not connect.
        gate, budget = self.registry.gate, settings.memory_budget()
        up = [each for each in seen if each.record.status is ConnectionStatus.CONNECTED]
        own = [each for each in up if not (each.pack or restarting)]
        restartable = {each.id for each in own if gate.incidents.well(each)}
        reasons, worst = decide_memory(seen, restartable, budget, settings.config.memory, now)
        for id, reason in reasons.items():
            if (facts := self.registry.facts.get(id)) is None or id in restarting:
                continue  # deleted while another one was asked
            said = bound(Category.MEMORY, id)
            self.registry.gate.wake(id)
            if id != worst:
                facts.freed_at = now
                sentence = f"the agent asked it to free its caches: {reason}"
                facts.note("memory", sentence, Category.MEMORY)
                try:
                    if facts.link is not None:
                        await facts.link.call("free_memory", timeout=10.0)
                except errors.WaError as error:
                    said.info("cannot free its memory: %s", error)
            else:
                said.warning("the agent restarts it gracefully: %s", reason)
                facts.memory_restart_at = now
                facts.asked.restart_for = reason


async def measure_whole(
    main_pids: Mapping[InstanceId, int], known: Mapping[InstanceId, Facts]
) -> dict[InstanceId, machine.Usage]:
    """Measure workers by the machine; by the worker if the machine has no figures."""
    found = await asyncio.to_thread(machine.measure, main_pids)
    sharers = Counter(facts.unit.main_pid for facts in known.values() if facts.unit.runs)
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def complete(id: InstanceId) -> None:
        async with turns:
            if (facts := known.get(id)) is None or facts.link is None or facts.instance.backend:
                return
            with suppress(errors.WaError, msgspec.ValidationError):
                told = await facts.link.call("own_use", timeout=5.0)
                usage = msgspec.convert(told, machine.Usage)
                if all(0 <= (figure or 0) < MOST for figure in astuple(usage)):
                    found[id] = found[id].completed(usage)

    await asyncio.gather(*(complete(id) for id in list(found) if found[id].partial))
    return {id: usage.shared_by(sharers[main_pids[id]]) for id, usage in found.items()}
