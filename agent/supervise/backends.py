"""Keeps one worker per backend running and linked, and tells who must wait because one is away.

A backend that is away costs its sessions one word (`backend_down`) and the others nothing. When
it is back its sessions are looked at one after another, not all at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from agent.config import BackendDeclaration, BackendsSection, secrets_of, worker_settings
from agent.core.model import (
    Category,
    Claim,
    Happening,
    InstanceId,
    JournalEntry,
    ServerClaim,
    UnitState,
    UnitStatus,
    parse_instance_id,
)
from agent.errors import LinkError, WaError
from agent.host.base import Host
from agent.link.client import Link, LinkStats, Peer
from agent.link.limits import BACKEND_LINK
from agent.supervise.backend_facts import BackendFacts, Ears, SeatLink
from agent.supervise.facts import Facts
from agent.supervise.loop import Loop, Wakes, boot_now
from agent.vault.backend_files import hook_secret, lay_out_backend, read_roster, write_roster

log = logging.getLogger(__name__)

LOOK_EVERY = 30.0
ATTACH_AGAIN = 0.5
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
TAKE_OVER = 5.0
MISCONFIGURED = 78
CALLS_AT_ONCE = 32


class Backends:
    """All declared backends."""

    def __init__(
        self,
        *,
        host: Host | None,
        root: Path,
        wakes: Wakes,
        facts: Mapping[InstanceId, Facts],
        wake: Callable[[InstanceId], None],
        note: Callable[[JournalEntry], None],
        link_stats: LinkStats,
        settings: Callable[[], BackendsSection],
    ) -> None:
        """`host` starts the workers of backends; None where no backend is declared."""
        self.all: dict[str, BackendFacts] = {}
        self.hooks: dict[str, str] = {}
        """The secret part of the address that each server calls; "" = it is not told to."""
        self.looked: Callable[[BackendFacts], Awaitable[None]] = _nothing
        """Awaited after each look at a backend that is up."""
        self._host = host
        self._root = root
        self._wakes = wakes
        self._facts = facts
        self._wake = wake
        self._note = note
        self._link_stats = link_stats
        self._settings = settings
        self._returning: set[asyncio.Task[None]] = set()
        self._files = asyncio.Lock()
        self.loop = Loop(wakes, self._look, parallel=64, retry_after=ATTACH_AGAIN * 10)

    async def take_over(self, declared: Collection[BackendDeclaration]) -> None:
        """Write down what the workers must know; find those that run already."""
        for each in declared:
            name = parse_instance_id(each.name)
            settings = worker_settings(each, secrets_of(each))
            self.hooks[name] = ""
            if each.webhook:
                self.hooks[name] = await asyncio.to_thread(hook_secret, self._root, name)
                settings["hook"] = self.hooks[name]
            changed = await asyncio.to_thread(
                lay_out_backend, self._root, name, each.engine, settings
            )
            roster = await asyncio.to_thread(read_roster, self._root, name)
            self.all[name] = found = BackendFacts(each, name, roster)
            if changed:
                await self._read_anew(found)
        # Sessions that were watched all the while must not be told of as away.
        await asyncio.gather(*(self._await_first_word(one) for one in self.all.values()))
        for one in self.all.values():
            one.away = {facts.id for facts in self.members(one)} if one.down else set()
            self._wakes.wake(one.name)

    # what passes ask

    def hold(self, facts: Facts) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not (name := facts.instance.backend):
            return ""
        one = self.all.get(name)
        if one is None:
            return "backend_missing"
        return "backend_down" if one.down or facts.id in one.away else ""

    def may_ask(self, facts: Facts) -> bool:
        """Whether a probe can tell anything now."""
        if not (name := facts.instance.backend):
            return True
        one = self.all.get(name)
        return one is not None and one.up and facts.id not in one.away

    def attach(self, facts: Facts, ears: Ears) -> SeatLink:
        """The session's share of its worker's link; what was claimed already is told at once."""
        one = self.all.get(facts.instance.backend)
        if one is None or one.link is None:
            raise LinkError(f"cannot reach the worker of {facts.id}'s backend", code="gone")
        one.ears[facts.id] = ears
        if (claim := one.last_words(facts.id)) is not None:
            ears.on_claim(facts.id, one.run, claim)
        return SeatLink(one.link, facts.id, lambda id: _forget_ears(one, id))

    # seats

    async def take_seat(self, one: BackendFacts, id: InstanceId) -> None:
        settings = dict(self._facts[id].instance.settings)
        if one.roster.get(id) != settings:
            one.roster[id] = settings
            await self._write_roster(one)
        if one.link is not None:
            await one.link.call("hold", {"id": id, "settings": settings})

    async def leave_seat(self, one: BackendFacts, id: InstanceId) -> None:
        if one.roster.pop(id, None) is not None:
            await self._write_roster(one)
        one.words.pop(id, None)
        _forget_ears(one, id)
        if one.link is not None:
            await one.link.call("release", {"id": id})

    async def close(self, *, leave_workers: bool) -> None:
        """The sessions on servers go on by themselves; only who watches them ends."""
        for task in self._returning:
            task.cancel()
        for one in self.all.values():
            if one.link is not None:
                await one.link.close()
                one.link = None
        if self._host is None:
            return
        if not leave_workers:
            await asyncio.gather(*(self._stop_worker(one) for one in self.all.values()))
        await self._host.close(leave_workers=leave_workers)

    # its own passes

    async def _look(self, id: InstanceId) -> float | None:
        one = self.all.get(id)
        if one is None or self._host is None:
            return None
        self._note_unit(one, await self._host.status(id))
        if one.unit.state is UnitState.ACTIVE:
            if one.link is None and boot_now() >= one.next_attach:
                await self._attach(one)
        elif not one.unit.runs and not one.unit.job_pending and not one.stopped_by_hand:
            await self._start(one)
        self._settle(one)
        if one.up:
            await self.looked(one)
        return self._next_look(one)

    def _next_look(self, one: BackendFacts) -> float:
        now = boot_now()
        if one.link is not None:
            soon = (
                [one.unwell_since + self._settings().patience]
                if one.unwell_since and not one.down
                else []
            )
            if one.up and one.declared.adopt:
                soon.append(max(one.next_look, now))
            return min([now + LOOK_EVERY, *soon])
        if one.unit.state is UnitState.ACTIVE:
            return max(one.next_attach, now)
        return min(max(one.next_start, now + ATTACH_AGAIN), now + LOOK_EVERY)

    def _note_unit(self, one: BackendFacts, unit: UnitStatus) -> None:
        before, one.unit = one.unit, unit
        if unit.restarts > before.restarts and unit.run:
            self._say(one, "restarted", "its worker ended and was started again by the host")
        if unit.runs:
            one.stopped_by_hand = one.our_stop = False
        elif (
            self._host is not None
            and self._host.name == "systemd"
            and before.runs
            and unit.state is UnitState.INACTIVE
            and not one.our_stop
            and not unit.job_pending
            and not one.stopped_by_hand
        ):
            one.stopped_by_hand = True
            self._say(one, "operator", "its worker was stopped by hand: it stays so until started")

    async def _start(self, one: BackendFacts) -> None:
        assert self._host is not None
        if boot_now() < one.next_start:
            return
        misconfigured = one.unit.exit_status == MISCONFIGURED
        if misconfigured and one.failed_starts:
            one.next_start = boot_now() + LONGEST_DELAY  # a person may have put it right
        try:
            if one.unit.state is UnitState.FAILED:
                await self._host.reset_failed(one.name)
            await self._host.start(one.name)
        except WaError as error:
            wait = min(FIRST_DELAY * 2.0 ** min(one.failed_starts, 16), LONGEST_DELAY)
            one.failed_starts += 1
            one.next_start = boot_now() + (LONGEST_DELAY if misconfigured else wait)
            log.warning("cannot start the worker of backend %s: %s", one.name, error)
            return
        one.failed_starts = 0
        one.unit = await self._host.status(one.name)
        if one.unit.state is UnitState.ACTIVE:
            await self._attach(one)

    async def _attach(self, one: BackendFacts) -> None:
        assert self._host is not None
        main_pid = one.unit.main_pid

        def check_peer(peer: Peer) -> str | None:
            if peer.pid != main_pid:
                return f"process {peer.pid} answers, the unit's main process is {main_pid}"
            return None

        one.next_attach = boot_now() + ATTACH_AGAIN
        try:
            link = await Link.open(
                self._host.link_path(one.name),
                one.name,
                check_peer,
                lambda id, run, claim: self._claimed(one, id, run, claim),
                lambda id, run, what: self._happened(one, id, run, what),
                lambda why: self._lost(one, why),
                stats=self._link_stats,
                limits=BACKEND_LINK,
                speaks_for=lambda id: id in one.roster,
                on_server=lambda run, claim: self._server(one, run, claim),
            )
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
            await self._call_the_roll(one)
        except WaError as error:
            log.warning("cannot tell the worker of backend %s whom to hold: %s", one.name, error)
            await link.close()
            one.link = None
            return
        for facts in self.members(one):
            self._wake(facts.id)

    async def _call_the_roll(self, one: BackendFacts) -> None:
        """Its file told it already; what changed while it had no agent is told again."""
        gone = [id for id in one.roster if id not in self._facts]
        for id in gone:
            await self.leave_seat(one, id)
        places = asyncio.Semaphore(CALLS_AT_ONCE)

        async def hold(id: InstanceId) -> None:
            async with places:
                if one.link is not None and id in one.roster:
                    await one.link.call("hold", {"id": id, "settings": dict(one.roster[id])})

        await asyncio.gather(*(hold(id) for id in list(one.roster)))
        if one.link is not None and one.server is None:
            await one.link.call("check", timeout=one.declared.timeout + 5.0)

    # what its worker says

    def _claimed(self, one: BackendFacts, id: InstanceId, run: str, claim: Claim) -> None:
        one.words[id] = (claim, boot_now())
        if (ears := one.ears.get(id)) is not None:
            ears.on_claim(id, run, claim)

    def _happened(self, one: BackendFacts, id: InstanceId, run: str, what: Happening) -> None:
        if (ears := one.ears.get(id)) is not None:
            ears.on_happening(id, run, what)

    def _lost(self, one: BackendFacts, why: str) -> None:
        log.info("the link to the worker of backend %s ended: %s", one.name, why)
        one.link = one.server = None
        for ears in list(one.ears.values()):
            ears.on_close(why)
        one.ears.clear()
        self._wakes.wake(one.name)

    def _server(self, one: BackendFacts, _run: str, claim: ServerClaim) -> None:
        before, one.server = one.server, claim
        one.checked_wall = time.time()
        one.failures = 0 if claim.up else one.failures + 1
        if before is None or before.up != claim.up:
            self._wakes.wake(one.name)

    # well and unwell

    def _settle(self, one: BackendFacts) -> None:
        """Believe that it is away, or back; a blink is neither."""
        now = boot_now()
        if one.up:
            one.unwell_since = None
            if one.down:
                self._is_back(one)
            return
        one.unwell_since = one.unwell_since or now
        if not one.down and now - one.unwell_since >= self._settings().patience:
            self._is_down(one)

    def _is_down(self, one: BackendFacts) -> None:
        one.down, one.since_wall = True, time.time()
        members = self.members(one)
        one.away = {facts.id for facts in members}
        sentence = f"it is down: {one.sentence}; {len(members)} sessions wait for it"
        self._say(one, "backend_down", sentence, bad=True)
        for facts in members:
            self._wake(facts.id)

    def _is_back(self, one: BackendFacts) -> None:
        one.down, one.since_wall = False, time.time()
        members = [facts for facts in self.members(one) if facts.id in one.away]
        self._say(one, "backend_up", f"it is up; {len(members)} sessions are looked at in turn")
        one.away = {facts.id for facts in members}
        random.shuffle(members)
        task = asyncio.get_running_loop().create_task(
            self._bring_back(one, members), name=f"bring back {one.name}"
        )
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _bring_back(self, one: BackendFacts, members: Collection[Facts]) -> None:
        for facts in members:
            if one.down:
                return  # whoever is still away waits for the next return
            one.away.discard(facts.id)
            # What it claimed before the outage is no word about now.
            facts.claim, facts.probe, facts.next_probe = None, None, 0.0
            facts.linked_since = boot_now()
            self._wake(facts.id)
            await asyncio.sleep(1.0 / self._settings().back_rate)

    # small things

    def members(self, one: BackendFacts) -> list[Facts]:
        return [facts for facts in self._facts.values() if facts.instance.backend == one.name]

    async def _await_first_word(self, one: BackendFacts) -> None:
        """Only of a worker that runs already; one that must start is waited for by nobody."""
        deadline = boot_now() + TAKE_OVER
        assert self._host is not None
        try:
            self._note_unit(one, await self._host.status(one.name))
            while one.unit.state is UnitState.ACTIVE and boot_now() < deadline and not one.up:
                if one.link is None:
                    await self._attach(one)
                elif one.server is not None:
                    return
                await asyncio.sleep(0.05)
        except WaError as error:
            log.warning("cannot look at the worker of backend %s: %s", one.name, error)
        if one.up:
            one.down, one.unwell_since = False, None

    async def _read_anew(self, one: BackendFacts) -> None:
        """Its settings changed: a worker that runs has the old ones."""
        assert self._host is not None
        try:
            if (await self._host.status(one.name)).runs:
                await self._host.restart(one.name)
        except WaError as error:
            log.warning("cannot restart the worker of backend %s: %s", one.name, error)

    async def _stop_worker(self, one: BackendFacts) -> None:
        assert self._host is not None
        one.our_stop = True
        try:
            await self._host.stop(one.name)
        except WaError as error:
            log.error("cannot close the worker of backend %s in order: %s", one.name, error)

    async def _write_roster(self, one: BackendFacts) -> None:
        async with self._files:  # many seats are taken at once: the newest picture is written
            await asyncio.to_thread(write_roster, self._root, one.name, dict(one.roster))

    def _say(self, one: BackendFacts, kind: str, sentence: str, *, bad: bool = False) -> None:
        told = f"backend {one.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", told)
        detail = {"backend": one.name}
        self._note(JournalEntry(kind, told, Category.HEALTH, None, time.time(), detail))


async def _nothing(_one: BackendFacts) -> None:
    pass


def _forget_ears(one: BackendFacts, id: InstanceId) -> None:
    one.ears.pop(id, None)
