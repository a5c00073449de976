"""All declared backends: what passes of their sessions ask of them, and what the API may ask."""

import asyncio
import fnmatch
import hashlib
import re
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import clock, errors, log
from agent.backends.backend import EVERY, NOT_CHECKED, TAKE_OVER, Backend, Look, Seat, crashed
from agent.config.config import BackendDeclaration
from agent.core.breaker import BreakerPolicy
from agent.core.crypto_patterns import CryptoPattern
from agent.core.model import Health, Instance, InstanceId, JournalEntry, Signal, UnitStatus
from agent.core.session import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES, BackendView, Session
from agent.core.words import ADOPTED, NO_PROOF, UNMEASURED, RemoteSession, parse_instance_id
from agent.engines.tasks import Tasks
from agent.store.database import Store

LET_GO = "let_go:{}/"
"""A fact in the database of a session whose instance an operator deleted; the server's name of it
follows."""
SLUG = 40
_NOT_OURS = re.compile(r"[^a-z0-9_-]+")


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Backends:
    root: Path
    """The folder with a folder for each backend, for what its kind keeps."""
    instances: Mapping[InstanceId, Session]
    store: Store
    wake: Callable[[InstanceId], None]
    """Begin a pass of that session."""
    look_again: Callable[[InstanceId, bool], None]
    """Called when a session's server is back. True: after an outage, from before which no claim
    proves anything."""
    note: Callable[[JournalEntry], object]
    breaker: Callable[[], BreakerPolicy]
    crypto_patterns: Sequence[CryptoPattern] = ()
    create: Callable[[Instance], Coroutine[Any, Any, Session]] = field(init=False)
    look: Look = field(init=False)
    tasks: Tasks = field(default_factory=lambda: Tasks(crashed))
    all: dict[str, Backend] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    """Reasons for which sessions are not adopted, as the log has them."""
    _adopting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The lock of an adoption: no order is carried out a second time meanwhile."""

    # agent and reload

    async def take_over(self, declared: Collection[BackendDeclaration]) -> None:
        """Watch the sessions again that the agent before this one watched."""
        await self.take_on(declared)
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKE_OVER):
                await asyncio.gather(*(backend.known.wait() for backend in self.all.values()))

    async def take_on(self, declared: Collection[BackendDeclaration]) -> None:
        """Watch the servers that are not watched yet."""
        for each in declared:
            if each.name not in self.all:
                name = parse_instance_id(each.name)
                self.all[name] = backend = Backend(each, name, self)
                # The name of a run outlives the agent: what was watched goes on.
                for id, one in backend.members.items():
                    if one.record.seen_run and one.record.seen_run != one.record.stopped_run:
                        backend.seats[id] = Seat(backend, id, one.record.seen_run)
                self.tasks.start(backend.run(), f"backend {name}")
                log.info("the agent watches backend %s", name)

    async def close(self) -> None:
        """Close all backends; the servers' sessions go on."""
        await self.tasks.cancel()

    # the sessions as units

    def units(self) -> Mapping[InstanceId, UnitStatus]:
        return {id: backend.unit(id) for backend in self.all.values() for id in backend.seats}

    def needed(self, session: Session) -> Backend:
        if (backend := self.of(session)) is None:
            id, name = session.instance.id, session.instance.backend
            raise errors.HostError(f"cannot start {id}: agent.toml declares no [[backend]] {name}")
        return backend

    # passes of sessions

    def of(self, session: Session) -> Backend | None:
        return self.all.get(session.instance.backend)

    def way_out(self, session: Session) -> str | None:
        """Return a word that sessions with the same proxy, or none, share; None: not known."""
        backend = self.of(session)
        seat = None if backend is None else backend.seats.get(session.instance.id)
        return None if seat is None or seat.session is None else seat.session.known.way_out

    def wait_reason(self, session: Session) -> str:
        """Return why a session on a backend must wait; "" = it need not, or is on none."""
        if not session.instance.backend:
            return ""
        if (backend := self.of(session)) is None:
            return "backend_missing"
        if backend.down or session.instance.id in backend.away:
            return BACKEND_UNCHECKED if backend.claim is NOT_CHECKED else BACKEND_DOWN
        return "" if backend.circuit.lets(session.instance.id) else "backend_circuit"

    def why_away(self, session: Session) -> str:
        """Return in words why the session's backend is away; "" = the backend is not declared."""
        if (backend := self.of(session)) is None:
            return ""
        if backend.claim.up:
            return "its backend is up again; the agent checks its sessions in turn"
        reason = BACKEND_UNCHECKED if backend.claim is NOT_CHECKED else BACKEND_DOWN
        return f"{WAIT_SENTENCES[reason]}: {backend.sentence}"

    def signals(self, session: Session) -> tuple[Signal, ...]:
        """A session of a backend that does not answer is not said to be well, though the backend
        may only blink: nothing has measured the session since."""
        if (backend := self.of(session)) is None:
            return ()
        if not backend.claim.up:
            sentence = f"nothing measures it now: {self.why_away(session)}"
            return (Signal(UNMEASURED, Health.DEGRADED, sentence),)
        seat = backend.seats.get(session.instance.id)
        words = "" if seat is None or seat.session is None else seat.session.known.unproved
        return (Signal(NO_PROOF, Health.DEGRADED, words),) if words else ()

    def slack(self, session: Session) -> float:
        """Seconds that the session's server takes longer than a quick one for a request."""
        backend = self.of(session)
        return 0.0 if backend is None else backend.slack

    def ask(self, session: Session, now: float) -> float | None:
        """None: the session's server is up. A boot time: ask again then, or when woken."""
        backend = self.of(session)
        return None if backend is None or backend.claim.up else now + EVERY

    def may_begin(self, session: Session) -> bool:
        """True if the server's last check was good; a half-open circuit lets one session begin."""
        backend = self.of(session)
        return backend is None or (backend.claim.up and backend.circuit.begin(session.instance.id))

    def check_place(self, instance: Instance) -> None:
        """Refuse an instance if its backend is undeclared, of another engine, or has it already."""
        what = f"cannot create {instance.id}"
        if (backend := self.all.get(instance.backend)) is None:
            known = ", ".join(self.all) or "none"
            cause = f"no [[backend]] {instance.backend!r:.60} is declared; declared: {known}"
            words = f"{what}: engine {instance.engine} needs settings.backend (--backend); {cause}"
            raise errors.InvalidRequest(words, field="settings.backend", code="unknown_backend")
        if (kind := backend.declared.engine) != instance.engine:
            cause = f"backend {backend.name} is of engine {kind}, not {instance.engine}"
            raise errors.InvalidRequest(f"{what}: {cause}", field="engine", code="wrong_engine")
        every = (it for twin in backend.twins for it in twin.members.items())
        remotes = {it.instance.remote: id for id, it in every}
        if (holder := remotes.get(instance.remote)) not in (None, instance.id):
            cause = f"{instance.remote!r:.80} of {backend.name} is {holder} here already"
            raise errors.Refused(f"{what}: {cause}", field="settings.remote", code="adopted")

    # requests; unknown names raise NotFound

    def views(self) -> Sequence[BackendView]:
        return [_view(backend) for backend in self.all.values()]

    def view(self, name: str) -> BackendView:
        return _view(self._find(name))

    async def sessions(self, name: str) -> tuple[RemoteSession, ...]:
        """Return the server's own list, read now; TryLater if none comes."""
        claim = (await self.check(name)).claim
        if claim.reason:  # it answers all but this: its last list is no answer
            raise errors.TryLater(f"cannot ask backend {name}: {claim.sentence}", code=claim.reason)
        return self._find(name).sessions

    async def check(self, name: str) -> BackendView:
        backend = self._find(name)
        if (await backend.check()).up:
            return _view(backend)
        raise errors.TryLater(f"cannot ask backend {name}: {backend.sentence}", code="backend_down")

    async def reset(self, name: str) -> BackendView:
        """Close a backend's circuit at once, by an operator's order."""
        backend = self._find(name)
        backend.say("operator", "an operator closed its circuit")
        backend.circuit.close()
        return _view(backend)

    def _find(self, name: str) -> Backend:
        if (backend := self.all.get(name)) is None:
            cause = "agent.toml declares none of that name"
            raise errors.NotFound(f"cannot find backend {name!r:.60}: {cause}")
        return backend

    # sessions of servers become instances

    async def adopt(self, name: str, asked: str, id: InstanceId | None = None) -> InstanceId:
        """Make an instance of the session that the server or its title calls `asked`. TryLater
        where the server gives no list."""
        backend = self._find(name)
        async with self._adopting:
            # Deleted once, and wanted again: also where the server gives no list now.
            await self.store.forget_facts([LET_GO.format(backend.name) + asked])
            remote = session_meant(name, await self.sessions(name), asked)
            return await self._take_in(backend, remote, id or self._free_id(backend, asked))

    async def discover(self, backend: Backend) -> None:
        """Make instances of the server's new sessions that match `adopt`."""
        if not (backend.claim.up and (patterns := backend.declared.adopt)):
            return
        async with self._adopting:
            prefix = LET_GO.format(backend.name)
            ours = {session.instance.remote for session in backend.members.values()}
            ours |= {name.removeprefix(prefix) for name in await self.store.get_facts(prefix)}
            for session in backend.sessions:
                words = (session.name, session.title)
                wanted = any(fnmatch.fnmatchcase(word, it) for word in words for it in patterns)
                if session.name in ours or not wanted:
                    continue
                try:
                    await self._take_in(backend, session.name, self._free_id(backend, session.name))
                except errors.WaError as error:
                    if str(error) not in self._refused:
                        log.warning("cannot adopt a session of backend %s: %s", backend.name, error)
                    self._refused.add(str(error))

    async def let_go(self, instance: Instance) -> None:
        """Note that an operator deleted the instance: `discover` must not make it again."""
        await self.store.put_facts({LET_GO.format(instance.backend) + instance.remote: ""})

    async def _take_in(self, backend: Backend, remote: str, id: InstanceId) -> InstanceId:
        settings = {"backend": backend.name, "remote": remote, ADOPTED: True}
        await self.create(Instance(id, backend.declared.engine, True, settings))
        await self.store.forget_facts([LET_GO.format(backend.name) + remote])
        return id

    def _free_id(self, backend: Backend, remote: str) -> InstanceId:
        """Return the server's name if it is a free id, else an id made from it."""
        slug = _NOT_OURS.sub("-", remote.lower()).strip("-_")[:SLUG]
        if slug == remote and InstanceId(slug) not in self.instances:
            return parse_instance_id(slug)
        mark = hashlib.sha256(f"{backend.name}/{remote}".encode()).hexdigest()[:6]
        return parse_instance_id(f"{slug or backend.name[:SLUG]}-{mark}")


def _view(backend: Backend) -> BackendView:
    claim, members, now, soon = backend.claim, backend.members.values(), clock.boot_now(), None
    if backend.next_check is not None:
        soon = time.time() + max(backend.next_check - now, 0.0)
    return BackendView(
        name=backend.name,
        engine=backend.declared.engine,
        url=backend.declared.url,
        claim=claim,
        sentence=backend.sentence,
        warning=claim.sentence if claim.up else "",
        since_wall=backend.since_wall,
        checked_wall=time.time() + backend.checked_at - now if backend.checked_at > 0 else None,
        held=len(backend.seats),
        connected=sum(member.record.status == "CONNECTED" for member in members),
        next_check_wall=soon,
        breaker=backend.circuit.state,
    )


def session_meant(backend: str, there: Sequence[RemoteSession], asked: str) -> str:
    """Return the server's name of the session that an operator named, by name or title."""
    if any(session.name == asked for session in there):
        return asked
    titled = [session.name for session in there if asked and session.title == asked]
    if len(titled) > 1:
        cause = f"{backend} has {len(titled)} sessions of that name"
        words = f"cannot adopt {asked!r:.80}: {cause}; take one of {', '.join(titled[:5])}"
        raise errors.Refused(words, field="remote", code="ambiguous")
    if not titled:
        raise errors.NotFound(f"cannot adopt {asked!r:.80}: {backend} has no such session")
    return titled[0]
