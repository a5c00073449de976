"""What instances use, measured in one look, and the steps against too much memory."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field

import msgspec

from agent.clock import boot_now
from agent.core.memory import decide_memory, note_memory
from agent.core.model import Category, ConnectionStatus, InstanceId
from agent.errors import WaError
from agent.host.machine import UNSEEN, Usage, measure
from agent.log import bound
from agent.supervise.facts import Facts, Notes, entry
from agent.supervise.registry import Registry

LOOK_FOR_NEW = 5.0
FRESH = 5.0
"""Seconds for which the figures of a look at one instance are shown again."""
WATCHED = 15.0
"""Seconds between two looks while a client, as the dashboard, asks for the figures."""
SETTLED = 10.0
"""So old is a worker when it is first measured, some seconds more or less."""

ASKED_AT_ONCE = 16
"""Workers that are asked for their own figures at the same time."""
LONGEST_ANSWER = 5.0
MOST = 1 << 50
"""A larger number is no figure of a process."""


@dataclass(slots=True, eq=False, repr=False)
class UsageSampler:
    """Measures all workers; frees caches and restarts, one at a time."""

    registry: Registry
    notes: Notes
    _watched_until: float = field(init=False, default=0.0)
    _measured: dict[InstanceId, tuple[int, float]] = field(init=False, default_factory=dict)
    """The process of each that runs, and when it was measured last."""

    async def run(self) -> None:
        await asyncio.sleep(self.registry.settings.config.start.first_check)
        while True:
            await self._measure(list(self.registry.facts), trend=True)
            await self.care()
            looked = boot_now()
            # Read each time: a reload may have changed it.
            while (left := looked + self.registry.settings.config.memory.interval - boot_now()) > 0:
                await asyncio.sleep(min(left, LOOK_FOR_NEW))
                await self._measure(self._due())

    def watch(self) -> None:
        """A client asked for the figures of all instances: keep them fresh for a while."""
        self._watched_until = boot_now() + 2 * WATCHED

    async def measure_now(self, id: InstanceId) -> None:
        """What one instance uses, unless that was measured a moment ago."""
        if boot_now() - self._measured.get(id, (0, 0.0))[1] > FRESH:
            await self._measure([id])

    def _due(self) -> list[InstanceId]:
        """Workers that began since the last look, once each; all, while a client watches."""
        now, due = boot_now(), []
        watched = now < self._watched_until
        for id, pid in self._running().items():
            known, at = self._measured.get(id, (0, 0.0))
            settled = self.registry.facts[id].unit.since <= now - SETTLED
            if (known != pid and settled) or (watched and now - at > WATCHED):
                due.append(id)
        return due

    async def _measure(self, ids: Collection[InstanceId], *, trend: bool = False) -> None:
        """Not of the `trend`: for display only. A fresh worker would make the hour's steeper."""
        running, now = self._running(), boot_now()
        wanted = {id: running[id] for id in ids if id in running}
        known = {id: it for id, it in self._measured.items() if id in running}
        self._measured = known | {id: (pid, now) for id, pid in wanted.items()}
        found = await measure_whole(wanted, self.registry.facts) if wanted else {}
        for id in ids if trend else found:
            if (facts := self.registry.facts.get(id)) is None:
                continue
            run, usage = facts.run, found.get(id, UNSEEN)
            spent = usage.cpu_seconds
            if facts.pack and spent is not None:
                # Its part is smaller once another session joins; a counter does not go back.
                spent = max(spent, run.cpu_seconds or 0.0)
            run.memory_bytes, run.cpu_seconds = usage.memory_bytes, spent
            run.processes = usage.processes
            if trend and usage.memory_bytes is not None:
                policy = self.registry.settings.config.memory
                run.memory_history = note_memory(
                    run.memory_history, usage.memory_bytes, policy, boot_now()
                )

    def _running(self) -> dict[InstanceId, int]:
        if not self.registry.settings.config.memory.measure:
            return {}
        return {
            id: facts.unit.main_pid
            for id, facts in self.registry.facts.items()
            if facts.unit.runs and facts.unit.main_pid
        }

    async def care(self) -> None:
        """First ask engines to free caches; then at most one graceful restart at a time."""
        settings, now, every = self.registry.settings, boot_now(), self.registry.facts.values()
        seen = [its for its in every if its.run.memory_bytes is not None and its.unit.runs]
        for its in seen:
            its.memory_limit = settings.memory_limit(its)
        restarting = {its.id for its in seen if its.action.task or its.asked.restart_for}
        # A start of one member gives nothing of its pack's memory back, and in an incident a
        # restarted session would not connect.
        restartable = {
            its.id
            for its in seen
            if not (its.pack or restarting)
            and its.record.status is ConnectionStatus.CONNECTED
            and self.registry.gate.incidents.well(its)
        }
        reasons, worst = decide_memory(
            seen, restartable, settings.memory_budget(), settings.config.memory, now
        )
        for id, reason in reasons.items():
            if (facts := self.registry.facts.get(id)) is None or id in restarting:
                continue  # deleted while another one was asked
            said = bound(Category.MEMORY, id)
            if id != worst:
                facts.freed_at = now
                sentence = f"the agent asked it to free its caches: {reason}"
                said.info("%s", sentence)
                self.notes.write(entry(facts, "memory", sentence, Category.MEMORY))
                try:
                    if facts.link is not None:
                        await facts.link.call("free_memory", timeout=10.0)
                except WaError as error:
                    said.info("cannot free its memory: %s", error)
            else:
                said.warning("the agent restarts it gracefully: %s", reason)
                facts.memory_restart_at = now
                facts.asked.restart_for = reason
                self.registry.gate.wake(id)


async def measure_whole(
    main_pids: Mapping[InstanceId, int], known: Mapping[InstanceId, Facts]
) -> dict[InstanceId, Usage]:
    """By the machine; where it has no figures, by the worker."""
    found = await asyncio.to_thread(measure, main_pids)
    sharers = Counter(facts.unit.main_pid for facts in known.values() if facts.unit.runs)
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def complete(id: InstanceId) -> None:
        async with turns:
            if (facts := known.get(id)) is not None:
                found[id] = found[id].completed(await _ask_worker(facts))

    await asyncio.gather(*(complete(id) for id in list(found) if found[id].partial))
    return {id: usage.shared_by(sharers[main_pids[id]]) for id, usage in found.items()}


async def _ask_worker(facts: Facts) -> Usage:
    if facts.link is not None and not facts.instance.backend:
        with suppress(WaError, msgspec.ValidationError):
            told = await facts.link.call("own_use", timeout=LONGEST_ANSWER)
            usage = msgspec.convert(told, Usage)
            if all(0 <= (figure or 0) < MOST for figure in astuple(usage)):
                return usage
    return UNSEEN
