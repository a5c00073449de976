"""The worker of each backend: start, restart, link, its list of sessions, stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import Claim, Happening, InstanceId, ServerClaim, UnitState, UnitStatus
from agent.errors import LinkError, WaError
from agent.host.base import Host
from agent.link.client import Link, LinkStats
from agent.link.limits import BACKEND_LINK
from agent.link.sockets import only_process
from agent.supervise.backends.facts import BackendFacts

log = logging.getLogger(__name__)

ATTACH_AGAIN = 0.5
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
MISCONFIGURED = 78
CALLS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class WorkerListener:
    """Who hears what the worker of a backend says."""

    claimed: Callable[[BackendFacts, InstanceId, str, Claim], None]
    happened: Callable[[BackendFacts, InstanceId, str, Happening], None]
    server: Callable[[BackendFacts, ServerClaim], None]
    lost: Callable[[BackendFacts, str], None]
    drop_strangers: Callable[[BackendFacts], Awaitable[None]]
    """The worker releases sessions without an instance."""


@dataclass(slots=True, eq=False, repr=False)
class BackendWorkers:
    """Acts on one backend's worker at a time; what it finds is written into its facts."""

    host: Host
    listener: WorkerListener
    link_stats: LinkStats
    say: Callable[[BackendFacts, str, str], object]

    async def look(self, one: BackendFacts) -> None:
        """Find it, and bring it up and near as far as that goes now."""
        self._note(one, await self.host.status(one.name))
        if one.unit.state is UnitState.ACTIVE:
            if one.link is None and boot_now() >= one.next_attach:
                await self._attach(one)
        elif not one.unit.runs and not one.unit.job_pending and not one.stopped_by_hand:
            await self._start(one)

    async def look_for_running(self, one: BackendFacts, within: float) -> None:
        """Reach one that runs already and hear its first word; start none."""
        deadline = boot_now() + within
        try:
            self._note(one, await self.host.status(one.name))
            while one.unit.state is UnitState.ACTIVE and boot_now() < deadline and not one.up:
                if one.link is None:
                    await self._attach(one)
                elif one.server is not None:
                    return
                await asyncio.sleep(0.05)
        except WaError as error:
            log.warning("cannot read the state of the worker of backend %s: %s", one.name, error)

    async def read_again(self, one: BackendFacts) -> None:
        """Its settings changed: a worker that runs has the old ones."""
        try:
            if (await self.host.status(one.name)).runs:
                await self.host.restart(one.name)
        except WaError as error:
            log.warning("cannot restart the worker of backend %s: %s", one.name, error)

    async def stop(self, one: BackendFacts) -> None:
        one.our_stop = True
        try:
            await self.host.stop(one.name)
        except WaError as error:
            log.error("cannot close the worker of backend %s in order: %s", one.name, error)

    async def close(self, *, leave_workers: bool) -> None:
        await self.host.close(leave_workers=leave_workers)

    def _note(self, one: BackendFacts, unit: UnitStatus) -> None:
        before, one.unit = one.unit, unit
        if unit.restarts > before.restarts and unit.run:
            self.say(one, "restarted", "its worker ended, and the host started it again")
        if unit.runs:
            one.stopped_by_hand = one.our_stop = False
            return
        stopped = before.runs and unit.state is UnitState.INACTIVE and not unit.job_pending
        operators_act_past_us = self.host.name == "systemd"
        if stopped and operators_act_past_us and not one.our_stop and not one.stopped_by_hand:
            one.stopped_by_hand = True
            self.say(
                one, "operator", "an operator stopped its worker: it stays stopped until a start"
            )

    async def _start(self, one: BackendFacts) -> None:
        if boot_now() < one.next_start:
            return
        # A restart cannot change a setting, but a person may have put it right meanwhile.
        patient = one.unit.exit_status == MISCONFIGURED
        try:
            if one.unit.state is UnitState.FAILED:
                await self.host.reset_failed(one.name)
            await self.host.start(one.name)
        except WaError as error:
            wait = min(FIRST_DELAY * 2.0 ** min(one.failed_starts, 16), LONGEST_DELAY)
            one.failed_starts += 1
            one.next_start = boot_now() + (LONGEST_DELAY if patient else wait)
            log.warning("cannot start the worker of backend %s: %s", one.name, error)
            return
        one.failed_starts = 0
        one.unit = await self.host.status(one.name)
        if one.unit.state is UnitState.ACTIVE:
            await self._attach(one)

    async def _attach(self, one: BackendFacts) -> None:
        one.next_attach = boot_now() + ATTACH_AGAIN
        try:
            link = await self._open_link(one)
        except LinkError as error:
            log.debug("cannot attach to the worker of backend %s: %s", one.name, error)
            return
        if link.hello.run != one.unit.run:
            await link.close()
            return
        if one.run != link.hello.run:
            one.words.clear()
        one.link, one.run, one.attached_at = link, link.hello.run, boot_now()
        try:
            await self._call_the_roll(one, link)
        except WaError as error:
            log.warning(
                "cannot send the worker of backend %s its list of sessions: %s", one.name, error
            )
            await link.close()
            one.link = None

    async def _open_link(self, one: BackendFacts) -> Link:
        listener = self.listener
        return await Link.open(
            self.host.link_path(one.name),
            one.name,
            only_process(one.unit.main_pid),
            lambda id, run, claim: listener.claimed(one, id, run, claim),
            lambda id, run, what: listener.happened(one, id, run, what),
            lambda why: listener.lost(one, why),
            stats=self.link_stats,
            limits=BACKEND_LINK,
            speaks_for=lambda id: id in one.roster,
            on_server=lambda _run, claim: listener.server(one, claim),
        )

    async def _call_the_roll(self, one: BackendFacts, link: Link) -> None:
        """Its file has its seats; the agent sends what changed while the worker had no agent."""
        await self.listener.drop_strangers(one)
        places = asyncio.Semaphore(CALLS_AT_ONCE)

        async def hold(id: InstanceId) -> None:
            async with places:
                if id in one.roster:
                    await link.call("hold", {"id": id, "settings": dict(one.roster[id])})

        await asyncio.gather(*(hold(id) for id in list(one.roster)))
        if one.server is None:
            await link.call("check", timeout=one.declared.timeout + 5.0)
