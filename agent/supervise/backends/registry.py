"""All declared backends: which there are, and what the passes of their sessions ask of them."""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration, with_secrets
from agent.core.model import Health, InstanceId, JournalEntry, Signal, parse_instance_id
from agent.core.waiting import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES
from agent.core.words import NO_PROOF, UNMEASURED
from agent.errors import ConfigError, LinkError
from agent.link.client import Listener
from agent.supervise.backends.backend import UNREAD_AGAIN, Backend, ServerLink, Shared
from agent.supervise.facts import Facts
from agent.vault.folder import open_root

log = logging.getLogger(__name__)

CIRCUITS = ("circuit_open", "circuit_closed")
"""Kinds of journal entries about a backend's circuit."""
RETRY_AFTER = 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share it."""
TAKE_OVER = 3.0
"""Seconds that a start waits for the first answer of servers."""


class Backends:
    def __init__(self, shared: Shared) -> None:
        self.all: dict[str, Backend] = {}
        self.shared = shared

    # agent and reload

    async def take_over(
        self, declared: Collection[BackendDeclaration], history: Iterable[JournalEntry] = ()
    ) -> None:
        """Watch the sessions again that the agent before this one watched, and open the circuits
        that it left open. `history`: journal entries of the kinds CIRCUITS, newest first."""
        for declaration in declared:
            await self._declare(declaration)
        newest: dict[object, JournalEntry] = {}
        for entry in history:
            newest.setdefault(entry.detail.get("backend"), entry)
        for backend in self.all.values():
            last = newest.get(str(backend.name))
            if last is not None and last.kind == "circuit_open":
                by_checks = last.detail.get("by") == "checks"
                backend.circuit.take_over(time.time() - last.wall, by_checks=by_checks)
            # The name of a run outlives the agent: what was watched goes on.
            backend.roster |= {
                its.id: its.record.seen_run
                for its in backend.members
                if its.record.seen_run and its.record.seen_run != its.record.stopped_run
            }
            await self.start(backend)
        # Sessions whose server is well never count as away.
        await asyncio.gather(*map(self._first_check, self.all.values()))
        for backend in self.all.values():
            backend.down = not backend.up
            backend.away = {its.id for its in backend.members} if backend.down else set()
            self.shared.wakes.wake(backend.name)

    async def add(self, declared: BackendDeclaration) -> bool:
        """Take on a backend that is new in the file. False: only the agent's next start can, for
        the name is in use."""
        if declared.name in self.all:
            return False
        await self._declare(declared)
        self.shared.wakes.wake(parse_instance_id(declared.name))
        return True

    async def read_secrets_again(self, name: str) -> bool:
        """After a change of the files that hold its key or password: whether its server is asked
        with others from now on. ConfigError: they cannot be read."""
        backend = self.all.get(name)
        if backend is None:
            return False
        before = backend.secret
        backend.secret = await asyncio.to_thread(with_secrets, backend.declared)
        if before == backend.secret:
            return False
        async with backend.turn:
            if backend.served is not None:
                await self._watch(backend)
        return True

    async def start(self, backend: Backend) -> None:
        """Begin to watch its server if it is not watched, as far as that can be done now."""
        if boot_now() >= backend.next_start and backend.secret is None:
            await self._read_secrets(backend)
        async with backend.turn:
            if boot_now() >= backend.next_start and backend.served is None:
                await self._watch(backend)

    async def _watch(self, backend: Backend) -> None:
        if backend.secret is None:
            return
        try:
            await backend.watch(backend.secret)
        except ConfigError as error:
            _cannot_use(backend, error)
        else:
            backend.unread = ""

    async def _first_check(self, backend: Backend) -> None:
        if backend.served is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKE_OVER):
                    await backend.served.check()

    async def _declare(self, declared: BackendDeclaration) -> None:
        name = parse_instance_id(declared.name)
        await asyncio.to_thread(make_folder, self.shared.root, name)
        self.all[name] = backend = Backend(declared, name, self.shared)
        await self._read_secrets(backend)

    async def _read_secrets(self, backend: Backend) -> None:
        try:
            await self.read_secrets_again(backend.name)
        except ConfigError as error:
            _cannot_use(backend, error)
        else:
            backend.unread = ""

    def look_now(self) -> None:
        """Check the servers that are away: the kernel's routes changed."""
        for backend in self.all.values():
            if backend.served is not None and not backend.up:
                backend.served.hurry()

    async def close(self) -> None:
        """The servers' sessions go on."""
        for backend in self.all.values():
            backend.close()
        await asyncio.gather(*(backend.unwatch() for backend in self.all.values()))

    # passes of sessions

    def of(self, facts: Facts) -> Backend | None:
        return self.all.get(facts.instance.backend)

    def wait_reason(self, facts: Facts) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not facts.instance.backend:
            return ""
        if (backend := self.of(facts)) is None:
            return "backend_missing"
        if backend.down or facts.id in backend.away:
            return BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
        return "" if backend.circuit.lets(facts.id) else "backend_circuit"

    def why_away(self, facts: Facts) -> str:
        """In words; "" = its backend is not declared."""
        if (backend := self.of(facts)) is None:
            return ""
        if backend.up:
            return "its backend is up again; the agent checks its sessions in turn"
        reason = BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
        return f"{WAIT_SENTENCES[reason]}: {backend.sentence}"

    def signals(self, facts: Facts) -> tuple[Signal, ...]:
        """A session of a backend that does not answer is not said to be well, though the backend
        may only blink: nothing has measured the session since."""
        if (backend := self.of(facts)) is None:
            return ()
        if backend.up:
            lacks = backend.server is not None and backend.server.reason == NO_PROOF
            return (Signal(NO_PROOF, Health.DEGRADED, backend.warning),) if lacks else ()
        sentence = f"nothing measures it now: {self.why_away(facts)}"
        return (Signal(UNMEASURED, Health.DEGRADED, sentence),)

    def slack(self, facts: Facts) -> float:
        """Seconds that its server takes longer than a quick one for what is asked of a session."""
        return 0.0 if (backend := self.of(facts)) is None else backend.slack

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: its server answered a check within FRESH. A time: ask again then, or when woken."""
        backend = self.of(facts)
        if backend is None or (backend.up and now - backend.checked_at <= FRESH):
            return None
        backend.asking.add(facts.id)
        if backend.served is not None:
            backend.served.hurry()
        return now + RETRY_AFTER

    def may_begin(self, facts: Facts) -> bool:
        """Whether its server's last check was good; a half-open circuit lets one session begin."""
        backend = self.of(facts)
        return backend is None or (backend.up and backend.circuit.begin(facts.id))

    def may_ask(self, facts: Facts) -> bool:
        """Whether a probe can reach its server now."""
        backend = self.of(facts)
        here = not facts.instance.backend
        return here or (backend is not None and backend.up and facts.id not in backend.away)

    def attach(self, facts: Facts, listener: Listener) -> ServerLink:
        if (backend := self.of(facts)) is None:
            raise LinkError(f"cannot reach {facts.id}: its server is not watched", code="gone")
        return backend.attach(facts.id, listener)

    def server_version(self, name: str) -> str:
        """The version that the server itself told last; "" = none yet."""
        return self.all[name].version if name in self.all else ""


def make_folder(root: Path, name: InstanceId) -> None:
    with open_root(root, create=True) as top:
        if top.make(name, top.modes):
            top.sync()


def _cannot_use(backend: Backend, error: ConfigError) -> None:
    if backend.unread != str(error):
        log.error("cannot use backend %s: %s; all else goes on", backend.name, error)
    backend.unread, backend.next_start = str(error), boot_now() + UNREAD_AGAIN
