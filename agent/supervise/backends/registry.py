"""All declared backends: which there are, and what the passes of their sessions ask of them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from agent.clock import boot_now
from agent.config import BackendDeclaration, BackendsSection, secrets_of, worker_settings
from agent.core.backends.outage import Outage
from agent.core.breaker import BreakerPolicy
from agent.core.model import Health, InstanceId, JournalEntry, Signal, parse_instance_id
from agent.core.waiting import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES
from agent.core.words import NO_PROOF, UNMEASURED
from agent.errors import ConfigError, LinkError, WaError
from agent.host.base import Host
from agent.link.limits import LinkStats
from agent.supervise.backends.circuit import Circuit
from agent.supervise.backends.facts import UNREAD_AGAIN, BackendFacts, SeatLink
from agent.supervise.backends.files import (
    hook_secret,
    lay_out_backend,
    make_backend_folder,
    read_roster,
)
from agent.supervise.backends.news import WorkerNews
from agent.supervise.backends.notes import Note, noted_circuit, say_by, take_over_circuits
from agent.supervise.backends.returns import Returns
from agent.supervise.backends.seats import Seats, forget_listener
from agent.supervise.backends.worker import BackendWorkers
from agent.supervise.facts import Facts
from agent.supervise.loop import Wakes
from agent.supervise.worker_link import Listener

log = logging.getLogger(__name__)

RETRY_AFTER = 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share it."""
TAKE_OVER = 5.0
"""Seconds that a start waits for workers that run already to say how their servers are."""


class Backends:
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
        """`host` starts the workers of backends; None: they have none."""
        self.all: dict[str, BackendFacts] = {}
        self.hooks: dict[str, str] = {}
        """The secret part of the address that each server calls; "" = it calls none."""
        self._root = root
        self._wakes = wakes
        self._facts = facts
        self._wake = wake
        self.settings = settings
        self._breaker = breaker
        self._crypto_patterns = crypto_patterns
        self._say = say_by(note)
        self.returns = Returns(self.members, wake, settings, self._say)
        self.seats = Seats(root, facts)
        self.news = WorkerNews(wakes, wake, self._say)
        self.workers = (
            None
            if host is None
            else BackendWorkers(host, self.news, self.seats, link_stats, self._say)
        )

    async def take_over(
        self, declared: Collection[BackendDeclaration], history: Iterable[JournalEntry] = ()
    ) -> None:
        """Write the files of the workers; find workers that run already. `history`: journal entries
        of the kinds CIRCUITS, newest first."""
        if (workers := self.workers) is None:
            return
        for declaration in declared:
            await self._declare(declaration)
        take_over_circuits(self.all, history)
        # Sessions whose worker ran all the time never count as away.
        backends = self.all.values()
        await asyncio.gather(*(workers.look_for_running(its, TAKE_OVER) for its in backends))
        for backend in backends:
            if backend.up:
                backend.outage = Outage()
            backend.away = (
                {facts.id for facts in self.members(backend)} if backend.outage.down else set()
            )
            self._wakes.wake(backend.name)

    async def add(self, declared: BackendDeclaration) -> bool:
        """Take on a backend that is new in the file. False: only the agent's next start can, for
        the name is in use."""
        if self.workers is None or declared.name in self.all:
            return False
        await self._declare(declared)
        self._wakes.wake(parse_instance_id(declared.name))
        return True

    async def read_secrets_again(self, name: str) -> bool:
        """After a change of the files that hold its key or password: whether the worker starts
        again with them. ConfigError: they cannot be read."""
        backend = self.all.get(name)
        if backend is None or self.workers is None:
            return False
        changed = await self._write_settings(backend.declared)
        if changed:
            await self.workers.read_again(backend)
        return changed

    async def _declare(self, declared: BackendDeclaration) -> None:
        name = parse_instance_id(declared.name)
        self.hooks[name] = ""
        if declared.webhook:
            self.hooks[name] = await asyncio.to_thread(hook_secret, self._root, name)
        await asyncio.to_thread(make_backend_folder, self._root, name)
        roster = await asyncio.to_thread(read_roster, self._root, name)
        self.all[name] = backend = BackendFacts(declared, name, roster, self._circuit(name))
        await self.read_unread(backend, first=True)
        if backend.unread:
            log.error("cannot use backend %s: %s; all else goes on", name, backend.unread)

    async def read_unread(self, backend: BackendFacts, *, first: bool = False) -> None:
        """Take on the key and the password of a backend, where they could not be read before. A
        worker that runs goes on with its earlier ones."""
        if not (first or backend.unread) or boot_now() < backend.next_start:
            return
        try:
            await self.read_secrets_again(backend.name)
        except ConfigError as error:
            backend.unread, backend.next_start = str(error), boot_now() + UNREAD_AGAIN
        else:
            backend.unread = ""

    async def _write_settings(self, declared: BackendDeclaration) -> bool:
        """The file of its worker; True: it is new or another one."""
        name = parse_instance_id(declared.name)
        settings = worker_settings(declared, await asyncio.to_thread(secrets_of, declared))
        if self._crypto_patterns:
            settings["crypto_patterns"] = list(self._crypto_patterns)
        if declared.webhook:
            settings["hook"] = self.hooks[name]
        return await asyncio.to_thread(lay_out_backend, self._root, name, declared.engine, settings)

    def wait_reason(self, facts: Facts) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not (name := facts.instance.backend):
            return ""
        backend = self.all.get(name)
        if backend is None:
            return "backend_missing"
        if backend.outage.down or facts.id in backend.away:
            return BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
        return "" if backend.circuit.lets(facts.id) else "backend_circuit"

    def why_away(self, facts: Facts) -> str:
        """In the words of its worker; "" = its backend is not declared."""
        backend = self.all.get(facts.instance.backend)
        if backend is None:
            return ""
        if backend.up:
            return "its backend is up again; the agent checks its sessions in turn"
        return _why_away(backend)

    def signals(self, facts: Facts) -> tuple[Signal, ...]:
        """A session of a backend that does not answer is not said to be well, though the backend
        may only blink: nothing has measured the session since."""
        backend = self.all.get(facts.instance.backend)
        if backend is None:
            return ()
        if backend.up:
            lacks = backend.server is not None and backend.server.reason == NO_PROOF
            return (Signal(NO_PROOF, Health.DEGRADED, backend.warning),) if lacks else ()
        sentence = f"nothing measures it now: {_why_away(backend)}"
        return (Signal(UNMEASURED, Health.DEGRADED, sentence),)

    def slack(self, facts: Facts) -> float:
        """Seconds that its server takes longer than a quick one for what is asked of a session."""
        backend = self.all.get(facts.instance.backend)
        return 0.0 if backend is None else backend.slowness.slack

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: its server answered a check within FRESH. A time: ask again then, or when woken."""
        backend = self.all.get(facts.instance.backend)
        if backend is None or (backend.up and now - backend.checked_at <= FRESH):
            return None
        backend.asking.add(facts.id)
        if backend.up:  # its worker checks a server that is down by itself
            self._begin_check(backend)
        return now + RETRY_AFTER

    def may_begin(self, facts: Facts) -> bool:
        """Whether its server's last check was good; a half-open circuit lets one session begin."""
        backend = self.all.get(facts.instance.backend)
        return backend is None or (backend.up and backend.circuit.begin(facts.id))

    def may_ask(self, facts: Facts) -> bool:
        """Whether a probe can reach its server now."""
        if not (name := facts.instance.backend):
            return True
        backend = self.all.get(name)
        return backend is not None and backend.up and facts.id not in backend.away

    def attach(self, facts: Facts, listener: Listener) -> SeatLink:
        """The session's share of its worker's link; `listener` gets the last claim at once."""
        backend = self.all.get(facts.instance.backend)
        if backend is None or backend.link is None:
            raise LinkError(f"cannot reach the worker of {facts.id}'s backend", code="gone")
        backend.listener[facts.id] = listener
        if (claim := backend.last_words(facts.id)) is not None:
            listener.on_claim(facts.id, backend.run, claim)
        return SeatLink(
            backend.link,
            facts.id,
            backend.circuit,
            lambda id: forget_listener(backend, id),
            lambda: backend.slowness.slack,
        )

    def look_now(self) -> None:
        """Check the servers that are away: the kernel's routes changed."""
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
        """End the links and, unless `leave_workers`, the workers; the servers' sessions go on."""
        self.returns.close()
        for backend in self.all.values():
            if backend.checking is not None:
                backend.checking.cancel()
            if backend.link is not None:
                await backend.link.close()
                backend.link = None
        if self.workers is None:
            return
        if not leave_workers:
            await asyncio.gather(*(self.workers.stop(backend) for backend in self.all.values()))
        await self.workers.close(leave_workers=leave_workers)

    def _circuit(self, name: InstanceId) -> Circuit:
        return noted_circuit(
            lambda: self.all[name],
            self._breaker,
            lambda: self.settings().trial == "check",
            self._say,
            self.wake_members,
        )

    def wake_members(self, backend: BackendFacts) -> None:
        for facts in self.members(backend):
            self._wake(facts.id)

    def server_version(self, name: str) -> str:
        """The version that the server itself told last; "" = none yet."""
        backend = self.all.get(name)
        return "" if backend is None else backend.version

    def members(self, backend: BackendFacts) -> list[Facts]:
        return [facts for facts in self._facts.values() if facts.instance.backend == backend.name]


def _why_away(backend: BackendFacts) -> str:
    reason = BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
    return f"{WAIT_SENTENCES[reason]}: {backend.sentence}"
