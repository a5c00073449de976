"""All declared backends: a worker for each, running and linked, and what passes ask of it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from agent.clock import boot_now
from agent.config import BackendDeclaration, BackendsSection, secrets_of, worker_settings
from agent.core.breaker import BreakerPolicy
from agent.core.incidents.outage import Outage
from agent.core.model import (
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
from agent.supervise.backends.circuit import Circuit
from agent.supervise.backends.facts import BackendFacts, SeatLink
from agent.supervise.backends.notes import (
    Note,
    note_warning,
    noted_circuit,
    say_by,
    take_over_circuits,
)
from agent.supervise.backends.returns import Returns
from agent.supervise.backends.seats import Seats, forget_listener
from agent.supervise.backends.worker import ATTACH_AGAIN, BackendWorkers, WorkerListener
from agent.supervise.facts import Facts
from agent.supervise.loop import Loop, Wakes
from agent.supervise.worker_link import Listener
from agent.vault.backend_files import hook_secret, lay_out_backend, read_roster

log = logging.getLogger(__name__)

LOOK_EVERY, RETRY_AFTER = 30.0, 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share backend."""
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
        note: Note,
        link_stats: LinkStats,
        settings: Callable[[], BackendsSection],
        breaker: Callable[[], BreakerPolicy],
        crypto_patterns: Sequence[str] = (),
    ) -> None:
        """`host` starts the workers of backends; None where no backend is declared."""
        self.all: dict[str, BackendFacts] = {}
        self.hooks: dict[str, str] = {}
        """The secret part of the address that each server calls; "" = it calls none."""
        self.looked: Callable[[BackendFacts], Awaitable[None]] = _nothing
        """Awaited after each look at a backend that is up."""
        self._root = root
        self._wakes = wakes
        self._facts = facts
        self._wake = wake
        self._settings = settings
        self._breaker = breaker
        self._crypto_patterns = crypto_patterns
        self._say = say_by(note)
        self._returns = Returns(self.members, wake, settings, self._say)
        self.seats = Seats(root, facts)
        listener = WorkerListener(
            self._claimed, self._happened, self._server, self._lost, self.seats.drop_strangers
        )
        self._workers = (
            None if host is None else BackendWorkers(host, listener, link_stats, self._say)
        )
        self.loop = Loop(wakes, self._look, parallel=64, retry_after=lambda: RETRY_AFTER)

    async def take_over(
        self, declared: Collection[BackendDeclaration], history: Iterable[JournalEntry] = ()
    ) -> None:
        """Write down what the workers must know; find those that run already.

        `history`: its entries of circuits (kinds CIRCUITS), newest first.
        """
        if (workers := self._workers) is None:
            return
        for each in declared:
            await self._declare(each, workers)
        take_over_circuits(self.all, history)
        # Sessions that were watched all the while never count as away.
        every = self.all.values()
        await asyncio.gather(*(workers.look_for_running(backend, TAKE_OVER) for backend in every))
        for backend in every:
            if backend.up:
                backend.outage = Outage()
            backend.away = (
                {facts.id for facts in self.members(backend)} if backend.outage.down else set()
            )
            self._wakes.wake(backend.name)

    async def add(self, declared: BackendDeclaration) -> bool:
        """Take on a backend that was not declared before; False where only the next start can: its
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
        self.all[name] = backend = BackendFacts(declared, name, roster, self._circuit(name))
        if changed:
            await workers.read_again(backend)

    # what passes ask

    def wait_reason(self, facts: Facts) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not (name := facts.instance.backend):
            return ""
        backend = self.all.get(name)
        if backend is None:
            return "backend_missing"
        if backend.outage.down or facts.id in backend.away:
            return "backend_down"
        return "" if backend.circuit.lets(facts.id) else "backend_circuit"

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: its server answered a check a moment ago. A time: ask again then, or when woken."""
        backend = self.all.get(facts.instance.backend)
        if backend is None or (backend.up and now - backend.checked_at <= FRESH):
            return None
        backend.asking.add(facts.id)
        if backend.up:  # else its worker checks it anyway
            self._begin_check(backend)
        return now + RETRY_AFTER

    def may_begin(self, facts: Facts) -> bool:
        """Whether its server's last check was good; a half-open circuit lets backend through."""
        backend = self.all.get(facts.instance.backend)
        return backend is None or (backend.up and backend.circuit.begin(facts.id))

    def may_ask(self, facts: Facts) -> bool:
        """Whether a probe can tell anything now."""
        if not (name := facts.instance.backend):
            return True
        backend = self.all.get(name)
        return backend is not None and backend.up and facts.id not in backend.away

    def attach(self, facts: Facts, listener: Listener) -> SeatLink:
        """The session's share of its worker's link; earlier claims come at once."""
        backend = self.all.get(facts.instance.backend)
        if backend is None or backend.link is None:
            raise LinkError(f"cannot reach the worker of {facts.id}'s backend", code="gone")
        backend.listener[facts.id] = listener
        if (claim := backend.last_words(facts.id)) is not None:
            listener.on_claim(facts.id, backend.run, claim)
        return SeatLink(
            backend.link, facts.id, backend.circuit, lambda id: forget_listener(backend, id)
        )

    def look_now(self) -> None:
        """The kernel's routes changed: a server that is away may be back at this moment."""
        for backend in self.all.values():
            if backend.link is not None and not backend.up:
                self._begin_check(backend)

    def _begin_check(self, backend: BackendFacts) -> None:
        if backend.checking is None:
            backend.checking = asyncio.get_running_loop().create_task(
                self._check_now(backend), name=f"look at backend {backend.name}"
            )

    async def _check_now(self, backend: BackendFacts) -> None:
        try:
            if backend.link is not None:
                await backend.link.call("check", timeout=backend.declared.timeout + 5.0)
        except WaError as error:
            log.debug("cannot check backend %s: %s", backend.name, error)
        finally:
            backend.checking = None

    async def close(self, *, leave_workers: bool) -> None:
        """The sessions on servers go on by themselves; only who watches them ends."""
        self._returns.close()
        for backend in self.all.values():
            if backend.checking is not None:
                backend.checking.cancel()
            if backend.link is not None:
                await backend.link.close()
                backend.link = None
        if self._workers is None:
            return
        if not leave_workers:
            await asyncio.gather(*(self._workers.stop(backend) for backend in self.all.values()))
        await self._workers.close(leave_workers=leave_workers)

    # its own passes

    async def _look(self, id: InstanceId) -> float | None:
        backend = self.all.get(id)
        if backend is None or self._workers is None:
            return None
        linked = backend.link
        await self._workers.look(backend)
        if backend.link is not linked:
            self._wake_all(self.members(backend))
        self._returns.look(backend)
        if backend.up:
            await self.looked(backend)
        return self._next_look(backend)

    def _next_look(self, backend: BackendFacts) -> float:
        now = boot_now()
        if backend.link is not None:
            blink = backend.outage.since if not backend.outage.down else None
            soon = [] if blink is None else [blink + self._settings().patience]
            if backend.up and backend.declared.adopt:
                soon.append(max(backend.next_look, now))
            return min([now + LOOK_EVERY, *soon])
        if backend.unit.state is UnitState.ACTIVE:
            return max(backend.next_attach, now)
        return min(max(backend.next_start, now + ATTACH_AGAIN), now + LOOK_EVERY)

    # what its worker says

    def _claimed(self, backend: BackendFacts, id: InstanceId, run: str, claim: Claim) -> None:
        backend.words[id] = (claim, boot_now())
        if (listener := backend.listener.get(id)) is not None:
            listener.on_claim(id, run, claim)

    def _happened(self, backend: BackendFacts, id: InstanceId, run: str, what: Happening) -> None:
        if (listener := backend.listener.get(id)) is not None:
            listener.on_happening(id, run, what)

    def _lost(self, backend: BackendFacts, why: str) -> None:
        log.info("the link to the worker of backend %s ended: %s", backend.name, why)
        backend.link = backend.server = None
        for listener in list(backend.listener.values()):
            listener.on_close(why)
        backend.listener.clear()
        self._wakes.wake(backend.name)

    def _server(self, backend: BackendFacts, claim: ServerClaim) -> None:
        before, backend.server = backend.server, claim
        backend.checked_wall, backend.checked_at = time.time(), boot_now()
        backend.next_check_wall = (
            None if claim.next_check is None else time.time() + claim.next_check
        )
        backend.version = claim.version or backend.version
        note_warning(backend, self._say)
        backend.circuit.checked(up=claim.up, reached=claim.reason != "unreachable")
        if before is None or before.up != claim.up:
            self._wakes.wake(backend.name)
        if claim.up and not backend.outage.down:  # else each is brought back in its turn
            asking, backend.asking = backend.asking, set()
            for id in asking:
                self._wake(id)

    def _circuit(self, name: InstanceId) -> Circuit:
        return noted_circuit(
            lambda: self.all[name],
            self._breaker,
            lambda: self._settings().trial == "check",
            self._say,
            lambda backend: self._wake_all(self.members(backend)),
        )

    def _wake_all(self, members: Iterable[Facts]) -> None:
        for facts in members:
            self._wake(facts.id)

    # small things

    def server_version(self, name: str) -> str:
        """The server's own, as it was last told; "" = never."""
        backend = self.all.get(name)
        return "" if backend is None else backend.version

    def members(self, backend: BackendFacts) -> list[Facts]:
        return [facts for facts in self._facts.values() if facts.instance.backend == backend.name]


async def _nothing(_one: BackendFacts) -> None:
    pass
