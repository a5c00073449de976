"""All declared backends: which there are, and what the passes of their sessions ask of them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration, with_secrets
from agent.config.sections import BackendsSection
from agent.core.backends.outage import Outage
from agent.core.breaker import BreakerPolicy
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.core.model import Health, InstanceId, JournalEntry, Signal, parse_instance_id
from agent.core.waiting import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES
from agent.core.words import NO_PROOF, UNMEASURED
from agent.errors import ConfigError, LinkError
from agent.link.client import Listener
from agent.supervise.backends.circuit import Circuit
from agent.supervise.backends.facts import UNREAD_AGAIN, BackendFacts
from agent.supervise.backends.files import make_backend_folder
from agent.supervise.backends.news import ServerNews
from agent.supervise.backends.notes import Note, noted_circuit, say_by, take_over_circuits
from agent.supervise.backends.returns import Returns
from agent.supervise.backends.served import ServerLink, Servers
from agent.supervise.facts import Facts
from agent.supervise.loop import Wakes

log = logging.getLogger(__name__)

RETRY_AFTER = 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share it."""
TAKE_OVER = 3.0
"""Seconds that a start waits for the first answer of servers."""


class Backends:
    def __init__(
        self,
        *,
        root: Path,
        wakes: Wakes,
        facts: Mapping[InstanceId, Facts],
        wake: Callable[[InstanceId], None],
        note: Note,
        settings: Callable[[], BackendsSection],
        breaker: Callable[[], BreakerPolicy],
        crypto_patterns: Sequence[CryptoPattern] = (),
    ) -> None:
        """`root`: a folder for each backend is in it, for what its kind keeps."""
        self.all: dict[str, BackendFacts] = {}
        self._root = root
        self._wakes = wakes
        self._facts = facts
        self._wake = wake
        self.settings = settings
        self._breaker = breaker
        self._say = say_by(note)
        self.returns = Returns(self.members, wake, settings, self._say)
        news = ServerNews(wakes, wake, self._say)
        self.servers = Servers(root, news, facts, crypto_patterns)

    async def take_over(
        self, declared: Collection[BackendDeclaration], history: Iterable[JournalEntry] = ()
    ) -> None:
        """Watch the sessions again that the agent before this one watched. `history`: journal
        entries of the kinds CIRCUITS, newest first."""
        for declaration in declared:
            await self._declare(declaration)
        take_over_circuits(self.all, history)
        backends = self.all.values()
        for backend in backends:
            # The name of a run outlives the agent: what was watched goes on.
            backend.roster |= {
                its.id: its.record.seen_run
                for its in self.members(backend)
                if its.record.seen_run and its.record.seen_run != its.record.stopped_run
            }
            await self.start(backend)
        # Sessions whose server is well never count as away.
        await asyncio.gather(*(self._first_check(backend) for backend in backends))
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
        if declared.name in self.all:
            return False
        await self._declare(declared)
        self._wakes.wake(parse_instance_id(declared.name))
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
                await self._start(backend)
        return True

    async def start(self, backend: BackendFacts) -> None:
        """Begin to watch its server if it is not watched, as far as that can be done now."""
        if boot_now() >= backend.next_start and backend.secret is None:
            await self._read_secrets(backend)
        async with backend.turn:
            if boot_now() >= backend.next_start and backend.served is None:
                await self._start(backend)

    async def _start(self, backend: BackendFacts) -> None:
        if backend.secret is None:
            return
        try:
            await self.servers.start(backend, backend.secret)
        except ConfigError as error:
            self._cannot_use(backend, error)
        else:
            backend.unread = ""

    async def _first_check(self, backend: BackendFacts) -> None:
        if backend.served is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKE_OVER):
                    await backend.served.check()

    async def _declare(self, declared: BackendDeclaration) -> None:
        name = parse_instance_id(declared.name)
        await asyncio.to_thread(make_backend_folder, self._root, name)
        self.all[name] = backend = BackendFacts(declared, name, self._circuit(name))
        await self._read_secrets(backend)

    async def _read_secrets(self, backend: BackendFacts) -> None:
        try:
            await self.read_secrets_again(backend.name)
        except ConfigError as error:
            self._cannot_use(backend, error)
        else:
            backend.unread = ""

    def _cannot_use(self, backend: BackendFacts, error: ConfigError) -> None:
        if backend.unread != str(error):
            log.error("cannot use backend %s: %s; all else goes on", backend.name, error)
        backend.unread, backend.next_start = str(error), boot_now() + UNREAD_AGAIN

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
        """In words; "" = its backend is not declared."""
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
        if backend.served is not None:
            backend.served.hurry()
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

    def attach(self, facts: Facts, listener: Listener) -> ServerLink:
        """The session's share of its server's task. `listener` gets the last claim at once, and
        what happened before."""
        backend = self.all.get(facts.instance.backend)
        if backend is None or backend.served is None or facts.id not in backend.roster:
            raise LinkError(f"cannot reach {facts.id}: its server is not watched", code="gone")
        backend.listener[facts.id] = listener
        if (claim := backend.last_words(facts.id)) is not None:
            listener.on_claim(backend.roster[facts.id], claim)
        for what in backend.unheard.pop(facts.id, ()):
            listener.on_happening(backend.roster[facts.id], what)
        return ServerLink(backend, backend.served, facts.id)

    def look_now(self) -> None:
        """Check the servers that are away: the kernel's routes changed."""
        for backend in self.all.values():
            if backend.served is not None and not backend.up:
                backend.served.hurry()

    async def close(self) -> None:
        """The servers' sessions go on."""
        self.returns.close()
        await asyncio.gather(*(self.servers.stop(backend) for backend in self.all.values()))

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
