"""The worker of each backend: start, restart, link, its list of sessions, stop."""

import asyncio
import logging
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitState, UnitStatus
from agent.errors import LinkError, WaError
from agent.host.base import Host
from agent.link.client import Link
from agent.link.limits import BACKEND_LINK, LinkStats
from agent.link.sockets import only_process
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.news import WorkerNews
from agent.supervise.backends.notes import Say
from agent.supervise.backends.seats import Seats

log = logging.getLogger(__name__)

ATTACH_AGAIN = 0.5
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
MISCONFIGURED = 78
CALLS_AT_ONCE = 32


@dataclass(slots=True, eq=False, repr=False)
class BackendWorkers:
    """Starts, links and stops the worker of a backend; writes what it sees into BackendFacts."""

    host: Host
    news: WorkerNews
    seats: Seats
    link_stats: LinkStats
    say: Say

    async def look(self, backend: BackendFacts) -> None:
        """Start the worker and attach to it, as far as that can be done now."""
        self._note(backend, await self.host.status(backend.name))
        if backend.unit.state is UnitState.ACTIVE:
            if backend.link is None and boot_now() >= backend.next_attach:
                await self._attach(backend)
        elif not backend.unit.runs and not backend.unit.job_pending and not backend.stopped_by_hand:
            await self._start(backend)

    async def look_for_running(self, backend: BackendFacts, within: float) -> None:
        """Attach to a worker that runs already and wait for its first claim; start none."""
        deadline = boot_now() + within
        try:
            self._note(backend, await self.host.status(backend.name))
            while boot_now() < deadline:
                if backend.unit.state is not UnitState.ACTIVE or backend.up:
                    return
                if backend.link is None:
                    await self._attach(backend)
                elif backend.server is not None:
                    return
                await asyncio.sleep(0.05)
        except WaError as error:
            log.warning("cannot read the worker of backend %s: %s", backend.name, error)

    async def read_again(self, backend: BackendFacts) -> None:
        """Restart a running worker: it has the old settings."""
        try:
            if (await self.host.status(backend.name)).runs:
                await self.host.restart(backend.name)
        except WaError as error:
            log.warning("cannot restart the worker of backend %s: %s", backend.name, error)

    async def stop(self, backend: BackendFacts) -> None:
        backend.our_stop = True
        try:
            await self.host.stop(backend.name)
        except WaError as error:
            log.error("cannot close the worker of backend %s in order: %s", backend.name, error)

    async def close(self, *, leave_workers: bool) -> None:
        await self.host.close(leave_workers=leave_workers)

    def _note(self, backend: BackendFacts, unit: UnitStatus) -> None:
        before, backend.unit = backend.unit, unit
        if unit.restarts > before.restarts and unit.run:
            self.say(backend, "restarted", "its worker ended, and the host started it again")
        if unit.runs:
            backend.stopped_by_hand = backend.our_stop = False
            return
        stopped = before.runs and unit.state is UnitState.INACTIVE and not unit.job_pending
        by_systemctl = self.host.name == "systemd" and not backend.our_stop
        if stopped and by_systemctl and not backend.stopped_by_hand:
            backend.stopped_by_hand = True
            sentence = "an operator stopped its worker: it stays stopped until a start"
            self.say(backend, "operator", sentence)

    async def _start(self, backend: BackendFacts) -> None:
        if backend.unread or boot_now() < backend.next_start:
            return
        # A restart changes no setting, but an operator may have corrected the file meanwhile.
        patient = backend.unit.exit_status == MISCONFIGURED
        try:
            if backend.unit.state is UnitState.FAILED:
                await self.host.reset_failed(backend.name)
            await self.host.start(backend.name)
        except WaError as error:
            wait = min(FIRST_DELAY * 2.0 ** min(backend.failed_starts, 16), LONGEST_DELAY)
            backend.failed_starts += 1
            backend.next_start = boot_now() + (LONGEST_DELAY if patient else wait)
            log.warning("cannot start the worker of backend %s: %s", backend.name, error)
            return
        backend.failed_starts = 0
        backend.unit = await self.host.status(backend.name)
        if backend.unit.state is UnitState.ACTIVE:
            await self._attach(backend)

    async def _attach(self, backend: BackendFacts) -> None:
        backend.next_attach = boot_now() + ATTACH_AGAIN
        try:
            link = await self._open_link(backend)
        except LinkError as error:
            log.debug("cannot attach to the worker of backend %s: %s", backend.name, error)
            return
        if link.hello.run != backend.unit.run:
            await link.close()
            return
        if backend.run != link.hello.run:
            backend.words.clear()
        backend.link, backend.run, backend.attached_at = link, link.hello.run, boot_now()
        try:
            await self._call_the_roll(backend, link)
        except WaError as error:
            log.warning(
                "cannot send the worker of backend %s its list of sessions: %s", backend.name, error
            )
            await link.close()
            backend.link = None

    async def _open_link(self, backend: BackendFacts) -> Link:
        news = self.news
        return await Link.open(
            self.host.link_path(backend.name),
            backend.name,
            only_process(backend.unit.main_pid),
            lambda id, run, claim: news.claimed(backend, id, run, claim),
            lambda id, run, what: news.happened(backend, id, run, what),
            lambda why: news.lost(backend, why),
            stats=self.link_stats,
            limits=BACKEND_LINK,
            speaks_for=lambda id: id in backend.roster,
            on_server=lambda _run, claim: news.server(backend, claim),
        )

    async def _call_the_roll(self, backend: BackendFacts, link: Link) -> None:
        """Send the list of sessions: it may have changed while the worker had no agent."""
        await self.seats.drop_strangers(backend)
        places = asyncio.Semaphore(CALLS_AT_ONCE)

        async def hold(id: InstanceId) -> None:
            async with places:
                if id in backend.roster:
                    await link.call("hold", {"id": id, "settings": dict(backend.roster[id])})

        await asyncio.gather(*(hold(id) for id in list(backend.roster)))
        if backend.server is None:
            await link.call("check", timeout=backend.declared.timeout + 5.0)
