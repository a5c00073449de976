"""Keeps one worker per backend running and linked, and tells who must wait because one is away.

A backend that is away costs its sessions one word (`backend_down`) and the others nothing. When
it is back its sessions are looked at one after another, not all at once.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.config import BackendDeclaration, BackendsSection, secrets_of, worker_settings
from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.model import (
    Category,
    Claim,
    Happening,
    InstanceId,
    JournalEntry,
    ServerClaim,
    UnitState,
    parse_instance_id,
)
from agent.errors import LinkError, WaError
from agent.host.base import Host
from agent.link.client import LinkStats
from agent.supervise.backends.circuit import Circuit, Noted
from agent.supervise.backends.facts import BackendFacts, SeatLink
from agent.supervise.backends.worker import ATTACH_AGAIN, BackendWorkers, WorkerListener
from agent.supervise.facts import Facts
from agent.supervise.loop import Loop, Wakes
from agent.supervise.worker_link import Listener
from agent.vault.backend_files import hook_secret, lay_out_backend, read_roster, write_roster

log = logging.getLogger(__name__)

LOOK_EVERY, RETRY_AFTER = 30.0, 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share one."""
_COUNTS = re.compile(r"[0-9]+")
CIRCUITS = ("circuit_open", "circuit_closed")
"""Kinds of history that tell a backend's circuit."""
TAKE_OVER = 5.0
"""Seconds that a start waits for workers that run already to say how their servers are."""


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
        note: Callable[[JournalEntry], Noted],
        link_stats: LinkStats,
        settings: Callable[[], BackendsSection],
        breaker: Callable[[], BreakerPolicy],
        crypto_patterns: Sequence[str] = (),
    ) -> None:
        """`host` starts the workers of backends; None where no backend is declared."""
        self.all: dict[str, BackendFacts] = {}
        self.hooks: dict[str, str] = {}
        """The secret part of the address that each server calls; "" = it is not told to."""
        self.looked: Callable[[BackendFacts], Awaitable[None]] = _nothing
        """Awaited after each look at a backend that is up."""
        self._root = root
        self._wakes = wakes
        self._facts = facts
        self._wake = wake
        self._note = note
        self._settings = settings
        self._breaker = breaker
        self._crypto_patterns = crypto_patterns
        self._returning: set[asyncio.Task[None]] = set()
        self._files = asyncio.Lock()
        listener = WorkerListener(
            self._claimed, self._happened, self._server, self._lost, self._drop_strangers
        )
        self._workers = (
            None if host is None else BackendWorkers(host, listener, link_stats, self._say)
        )
        self.loop = Loop(wakes, self._look, parallel=64, retry_after=lambda: RETRY_AFTER)

    async def take_over(
        self, declared: Collection[BackendDeclaration], told: Iterable[JournalEntry] = ()
    ) -> None:
        """Write down what the workers must know; find those that run already.

        `told`: what the history says of circuits (kinds CIRCUITS), newest first.
        """
        if (workers := self._workers) is None:
            return
        for each in declared:
            await self._declare(each, workers)
        self._take_over_circuits(told)
        # Sessions that were watched all the while must not be told of as away.
        every = self.all.values()
        await asyncio.gather(*(workers.look_for_running(one, TAKE_OVER) for one in every))
        for one in every:
            if one.up:
                one.down, one.unwell_since = False, None
            one.away = {facts.id for facts in self.members(one)} if one.down else set()
            self._wakes.wake(one.name)

    async def add(self, declared: BackendDeclaration) -> bool:
        """Take on one that was not declared before; False where only the next start can: its
        earlier self is still there, or the agent began without any backend."""
        if self._workers is None or declared.name in self.all:
            return False
        await self._declare(declared, self._workers)
        self._wakes.wake(parse_instance_id(declared.name))
        return True

    async def _declare(self, declared: BackendDeclaration, workers: BackendWorkers) -> None:
        name = parse_instance_id(declared.name)
        settings = worker_settings(declared, secrets_of(declared))
        if self._crypto_patterns:
            settings["crypto_patterns"] = list(self._crypto_patterns)
        self.hooks[name] = ""
        if declared.webhook:
            self.hooks[name] = await asyncio.to_thread(hook_secret, self._root, name)
            settings["hook"] = self.hooks[name]
        changed = await asyncio.to_thread(
            lay_out_backend, self._root, name, declared.engine, settings
        )
        roster = await asyncio.to_thread(read_roster, self._root, name)
        self.all[name] = found = BackendFacts(declared, name, roster, self._circuit(name))
        if changed:
            await workers.read_anew(found)

    # what passes ask

    def hold(self, facts: Facts) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not (name := facts.instance.backend):
            return ""
        one = self.all.get(name)
        if one is None:
            return "backend_missing"
        if one.down or facts.id in one.away:
            return "backend_down"
        return "" if one.circuit.lets(facts.id) else "backend_circuit"

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: its server answered a check a moment ago. A time: ask again then, or when woken."""
        one = self.all.get(facts.instance.backend)
        if one is None or (one.up and now - one.checked_at <= FRESH):
            return None
        one.asking.add(facts.id)
        if one.up:  # else its worker checks it anyway
            self._begin_check(one)
        return now + RETRY_AFTER

    def may_begin(self, facts: Facts) -> bool:
        """Whether its server's last check was good; a half-open circuit lets one through."""
        one = self.all.get(facts.instance.backend)
        return one is None or (one.up and one.circuit.begin(facts.id))

    def may_ask(self, facts: Facts) -> bool:
        """Whether a probe can tell anything now."""
        if not (name := facts.instance.backend):
            return True
        one = self.all.get(name)
        return one is not None and one.up and facts.id not in one.away

    def attach(self, facts: Facts, listener: Listener) -> SeatLink:
        """The session's share of its worker's link; what was claimed already is told at once."""
        one = self.all.get(facts.instance.backend)
        if one is None or one.link is None:
            raise LinkError(f"cannot reach the worker of {facts.id}'s backend", code="gone")
        one.listener[facts.id] = listener
        if (claim := one.last_words(facts.id)) is not None:
            listener.on_claim(facts.id, one.run, claim)
        return SeatLink(one.link, facts.id, one.circuit, lambda id: _forget_ears(one, id))

    def look_now(self) -> None:
        """The kernel's routes changed: a server that is away may be back at this moment."""
        for one in self.all.values():
            if one.link is not None and not one.up:
                self._begin_check(one)

    def _begin_check(self, one: BackendFacts) -> None:
        if one.checking is None:
            one.checking = asyncio.get_running_loop().create_task(
                self._check_now(one), name=f"look at backend {one.name}"
            )

    async def _check_now(self, one: BackendFacts) -> None:
        try:
            if one.link is not None:
                await one.link.call("check", timeout=one.declared.timeout + 5.0)
        except WaError as error:
            log.debug("cannot check backend %s: %s", one.name, error)
        finally:
            one.checking = None

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

    async def _drop_strangers(self, one: BackendFacts) -> None:
        for id in [id for id in one.roster if id not in self._facts]:
            await self.leave_seat(one, id)

    async def close(self, *, leave_workers: bool) -> None:
        """The sessions on servers go on by themselves; only who watches them ends."""
        for task in self._returning:
            task.cancel()
        for one in self.all.values():
            if one.checking is not None:
                one.checking.cancel()
            if one.link is not None:
                await one.link.close()
                one.link = None
        if self._workers is None:
            return
        if not leave_workers:
            await asyncio.gather(*(self._workers.stop(one) for one in self.all.values()))
        await self._workers.close(leave_workers=leave_workers)

    # its own passes

    async def _look(self, id: InstanceId) -> float | None:
        one = self.all.get(id)
        if one is None or self._workers is None:
            return None
        linked = one.link
        await self._workers.look(one)
        if one.link is not linked:
            for facts in self.members(one):
                self._wake(facts.id)
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

    # what its worker says

    def _claimed(self, one: BackendFacts, id: InstanceId, run: str, claim: Claim) -> None:
        one.words[id] = (claim, boot_now())
        if (listener := one.listener.get(id)) is not None:
            listener.on_claim(id, run, claim)

    def _happened(self, one: BackendFacts, id: InstanceId, run: str, what: Happening) -> None:
        if (listener := one.listener.get(id)) is not None:
            listener.on_happening(id, run, what)

    def _lost(self, one: BackendFacts, why: str) -> None:
        log.info("the link to the worker of backend %s ended: %s", one.name, why)
        one.link = one.server = None
        for listener in list(one.listener.values()):
            listener.on_close(why)
        one.listener.clear()
        self._wakes.wake(one.name)

    def _server(self, one: BackendFacts, claim: ServerClaim) -> None:
        before, one.server = one.server, claim
        one.checked_wall, one.checked_at = time.time(), boot_now()
        one.next_check_wall = None if claim.next_check is None else time.time() + claim.next_check
        one.version = claim.version or one.version
        self._note_warning(one)
        one.circuit.checked(up=claim.up, reached=claim.reason != "unreachable")
        if before is None or before.up != claim.up:
            self._wakes.wake(one.name)
        if claim.up and not one.down:  # else each is brought back in its turn
            asking, one.asking = one.asking, set()
            for id in asking:
                self._wake(id)

    def _note_warning(self, one: BackendFacts) -> None:
        """Said when it begins and when it changes its kind, not for each further error."""
        kind = _COUNTS.sub("#", one.warning)
        if kind == one.warned:
            return
        one.warned = kind
        if kind:
            self._say(one, "backend_warning", one.warning, bad=True)
        elif one.up:
            self._say(
                one, "backend_warning_over", "its logs name the sessions of their errors again"
            )

    # well and unwell

    def _settle(self, one: BackendFacts) -> None:
        """Believe that it is away, or back; a blink is neither."""
        now = boot_now()
        if one.up:
            blinked, one.unwell_since = one.unwell_since is not None, None
            if one.down:
                self._is_back(one)
            elif blinked:
                self._one_by_one(one, self._look_again(one))
            return
        one.unwell_since = one.unwell_since or now
        if not one.down and now - one.unwell_since >= self._settings().patience:
            self._is_down(one)

    def _is_down(self, one: BackendFacts) -> None:
        one.down, one.since_wall = True, time.time()
        members = self.members(one)
        one.away = {facts.id for facts in members}
        one.asking.clear()
        sentence = f"it is down: {one.sentence}; {len(members)} sessions wait for it"
        self._say(one, "backend_down", sentence, bad=True)
        for facts in members:
            self._wake(facts.id)

    def _is_back(self, one: BackendFacts) -> None:
        one.down, one.since_wall = False, time.time()
        members = [facts for facts in self.members(one) if facts.id in one.away]
        self._say(
            one, "backend_up", f"it is up; the agent checks its {len(members)} sessions in turn"
        )
        one.away = {facts.id for facts in members}
        random.shuffle(members)
        self._one_by_one(one, self._bring_back(one, members))

    def _one_by_one(self, one: BackendFacts, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"bring back {one.name}")
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _look_again(self, one: BackendFacts) -> None:
        """It was away for a moment: what it was to its sessions shows when they are asked."""
        for facts in self.members(one):
            facts.next_probe, facts.asked.try_at_once = 0.0, True
            self._wake(facts.id)
            await asyncio.sleep(1.0 / self._settings().back_rate)

    async def _bring_back(self, one: BackendFacts, members: Collection[Facts]) -> None:
        for facts in members:
            if one.down:
                return  # whoever is still away waits for the next return
            one.away.discard(facts.id)
            # Its claims from before the outage are worthless now.
            facts.run.claim, facts.run.probe, facts.next_probe = None, None, 0.0
            facts.asked.try_at_once = True  # its delay is of before, or waited long enough
            facts.run.linked_since = boot_now()
            self._wake(facts.id)
            await asyncio.sleep(1.0 / self._settings().back_rate)

    def _take_over_circuits(self, told: Iterable[JournalEntry]) -> None:
        newest: dict[object, JournalEntry] = {}
        for entry in told:
            newest.setdefault(entry.detail.get("backend"), entry)
        for name, entry in newest.items():
            one = self.all.get(InstanceId(str(name)))
            if one is not None and entry.kind == "circuit_open":
                by_checks = entry.detail.get("by") == "checks"
                one.circuit.take_over(time.time() - entry.wall, by_checks=by_checks)

    def _circuit(self, name: InstanceId) -> Circuit:
        def by_check() -> bool:
            return self._settings().trial == "check"

        def changed(state: BreakerState) -> None:
            one = self.all[name]
            if state is BreakerState.OPEN:
                said = f"{one.circuit.sentence}: its sessions wait"
                by = "checks" if one.circuit.by_checks else "calls"
                one.circuit.noted = self._say(one, "circuit_open", said, bad=True, by=by)
            else:
                one.circuit.noted = self._say(one, "circuit_closed", "its circuit is closed again")
            for facts in self.members(one):
                self._wake(facts.id)

        return Circuit(self._breaker, by_check, changed)

    # small things

    def server_version(self, name: str) -> str:
        """The server's own, as it was last told; "" = never."""
        one = self.all.get(name)
        return "" if one is None else one.version

    def members(self, one: BackendFacts) -> list[Facts]:
        return [facts for facts in self._facts.values() if facts.instance.backend == one.name]

    async def _write_roster(self, one: BackendFacts) -> None:
        async with self._files:  # many seats are taken at once: the newest picture is written
            await asyncio.to_thread(write_roster, self._root, one.name, dict(one.roster))

    def _say(
        self, one: BackendFacts, kind: str, sentence: str, *, bad: bool = False, **more: str
    ) -> Noted:
        told = f"backend {one.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", told)
        detail = {"backend": one.name, **more}
        return self._note(JournalEntry(kind, told, Category.HEALTH, None, time.time(), detail))


async def _nothing(_one: BackendFacts) -> None:
    pass


def _forget_ears(one: BackendFacts, id: InstanceId) -> None:
    one.listener.pop(id, None)
