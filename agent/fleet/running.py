"""Running: the sessions of this machine, as the keeper starts, extends and ends them.

It stands at the gate of the supervisor: a session that this machine does not own starts here in no
way, even if its folder lies on this disk.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from agent.clock import boot_now
from agent.core import admission, reconcile, session, words
from agent.core.model import InstanceId
from agent.errors import EngineError, LinkError, WaError
from agent.fleet import keeper, records
from agent.log import about, going_on, log
from agent.supervise import assemble, gate
from agent.supervise.facts import Facts, WorkerLink

TOLD_WITHIN = 2.0
"""Seconds for a worker to answer a lease; the next one does not wait for that."""
END_AGAIN = 0.5
_HARMLESS = frozenset({reconcile.ActionKind.STOP, reconcile.ActionKind.DISCONNECT})


class Running(gate.Alone):
    """The sessions' workers. Those of backends have none here, and are no part of the fleet."""

    leased, clock, in_doubt = True, keeper.BootClock(), False
    """in_doubt: True while this machine may be the twin of one that runs, and sends nothing."""
    settled: Callable[[str, records.Session], bool]
    """True if the files here are those that the session goes on with."""
    why: Callable[[str], str]
    """Why the session may not start here; "" = there is nothing more to say."""

    def __init__(self, supervisor: assemble.Supervisor) -> None:
        self._supervisor, self._registry = supervisor, supervisor.registry
        self._allowed: Mapping[str, records.Session] = {}
        """Sessions that may start before `_until`."""
        self._until = 0.0
        self.keeper: keeper.Keeper | None = None
        """The keeper; None until the store has answered."""
        self._telling, self.started = set[asyncio.Task[None]](), asyncio.Event()
        """started: set with each `start`."""

    @property
    def halted(self) -> bool:
        return self.keeper is not None and self.keeper.halted

    def here(self) -> dict[str, Facts]:
        """Return all sessions of this machine that are a part of the fleet."""
        return {id: it for id, it in self._registry.facts.items() if it.leased}

    # Questions of the keeper

    def running(self) -> Collection[InstanceId]:
        """Return the sessions of the fleet that have a worker here."""
        return {it.id for it in self.here().values() if it.unit.runs or it.action.is_start}

    def extend(self, until: float) -> None:
        """Let workers run until the boot clock shows `until`; each ends there by itself."""
        if self._until <= boot_now():  # its workers have ended: each may start at once again
            self._allowed = {}
        self._until = until
        for facts in self.here().values():
            self.attached(facts)

    def start(self, owned: Mapping[str, records.Session]) -> None:
        """These sessions may run, until the moment of the last `extend`. Called again with each
        renewal: a session that is not named is not started."""
        owned = {id: it for id, it in owned.items() if self.settled(id, it)}
        new, self._allowed = owned.keys() - self._allowed.keys(), owned
        for id in new & self._registry.facts.keys():
            facts = self._registry.facts[InstanceId(id)]
            self.attached(facts)  # a worker may wait for it
            # Not after a ban, say.
            if facts.record.reason == words.NO_LEASE and not facts.unit.runs:
                facts.asked.try_at_once = True
            self._supervisor.wake(facts.id)
        self.started.set()

    async def end(self, ids: Collection[str]) -> None:
        """Return when these workers have ended."""
        self._allowed = {id: it for id, it in self._allowed.items() if id not in ids}
        await asyncio.gather(*(self._end(InstanceId(id)) for id in ids))

    async def end_all(self) -> None:
        """End every worker and start none before the next `start`."""
        self._allowed, self._until = {}, 0.0
        while True:
            try:
                ids = {*await self.workers(), *self.running()}
                break
            except WaError as error:
                log.error("cannot look for workers to end: %s", error)
            await asyncio.sleep(END_AGAIN)
        await asyncio.gather(*(self._end(id) for id in ids))

    async def workers(self) -> set[InstanceId]:
        """Return ids of the sessions that have a worker, as the host says."""
        every = (await self._supervisor.seats.list()).items()
        others = {id for id, it in self._registry.facts.items() if it.instance.backend}
        return {id for id, unit in every if unit.runs or unit.job_pending} - others

    # Questions of the gate and of a pass

    def holds(self, facts: Facts, plan: reconcile.Plan | None) -> session.Wait | None:
        """Return why a session may not start. A worker that runs is held by its fence instead."""
        free = facts.unit.runs if plan is None else _HARMLESS.issuperset(plan.actions)
        may = facts.id in self._allowed and boot_now() < self._until and not self.halted
        if free or may or not (facts.leased and facts.should_run):
            return None
        return session.Wait(words.NO_LEASE, self.why(facts.id), boot_now() + admission.ASK_AGAIN)

    # Leases and ends.

    def attached(self, facts: Facts) -> None:
        if (link := facts.link) is None or not facts.leased or self._until <= boot_now():
            return
        args = {"until": self._until, "extend": facts.id not in self._allowed}
        task = asyncio.create_task(self._tell(facts, link, args), name=f"lease of {facts.id}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, facts: Facts, link: WorkerLink, args: Mapping[str, object]) -> None:
        """Tell a worker its lease. One that began before this fleet has no fence: it ends."""
        with suppress(LinkError):
            try:
                await link.call("lease", args, timeout=TOLD_WITHIN)
            except EngineError as error:
                if error.code == "invalid_request" and link is facts.link:
                    log.warning("its worker ends: %s", error, extra=about(facts.id))
                    await self.end({facts.id})

    async def _end(self, id: InstanceId) -> None:
        if (facts := self._registry.facts.get(id)) is None:
            await self._stop(id, None)
            return
        facts.action.interrupt_start()
        # Saved first: the next agent must not take this end for an operator's stop.
        facts.record = replace(facts.record, stopped_run=facts.record.seen_run)
        with going_on("cannot write down that its worker is ended"):
            await self._registry.save(facts)
        await self._stop(id, facts)
        async with facts.busy:  # its pass may have gone on to a start
            await self._stop(id, facts)
        self._supervisor.wake(id)

    async def _stop(self, id: InstanceId, facts: Facts | None) -> None:
        """Until it has ended: the host kills a worker that takes too long, and its fence ends it
        whatever the host does."""
        seats, host = self._supervisor.seats, self._supervisor.host
        while True:
            try:
                await (seats.stop(facts) if facts else host.stop(id))
                if not (await (seats.status(facts) if facts else host.status(id))).runs:
                    return
            except WaError as error:
                log.warning("cannot end its worker: %s", error, extra=about(id))
            await asyncio.sleep(END_AGAIN)
