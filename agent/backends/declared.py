"""All declared backends: what passes of their sessions ask of them, and what the API may ask."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.backends.adoption import Adoption, check_now, holder_of
from agent.backends.backend import TAKE_OVER, Backend, Member, Seat, Shared
from agent.config.declaration import BackendDeclaration
from agent.core.model import (
    Category,
    Health,
    Instance,
    InstanceId,
    JournalEntry,
    RemoteSession,
    Signal,
    UnitStatus,
    parse_instance_id,
)
from agent.core.view import BackendView
from agent.core.waiting import BACKEND_DOWN, BACKEND_UNCHECKED, WAIT_SENTENCES
from agent.core.words import NO_PROOF, UNMEASURED
from agent.errors import HostError, InvalidRequest, NotFound, Refused, WaError
from agent.log import bound
from agent.vault.folder import open_root

log = logging.getLogger(__name__)

RETRY_AFTER = 5.0
FRESH = 1.0
"""Seconds for which a good check lets sessions try: many that come back together share it."""
LATEST_CIRCUITS = 1000
"""The most entries of the journal that may hold a circuit's last change."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Backends(Shared):
    all: dict[str, Backend] = field(default_factory=dict)
    adoption: Adoption = field(init=False)

    def __post_init__(self) -> None:
        self.adoption = Adoption(self)
        self.discover = self.adoption.discover

    # agent and reload

    async def take_over(self, declared: Collection[BackendDeclaration]) -> None:
        """Watch the sessions again that the agent before this one watched, and open the circuits
        that it left open."""
        for declaration in declared:
            await self._declare(declaration)
        newest: dict[object, JournalEntry] = {}
        kinds = ("circuit_open", "circuit_closed")
        for entry in await self.store.history(kinds=kinds, limit=LATEST_CIRCUITS):
            newest.setdefault(entry.detail.get("backend"), entry)
        for backend in self.all.values():
            last = newest.get(str(backend.name))
            if last is not None and last.kind == "circuit_open":
                backend.circuit.take_over(time.time() - last.wall)
            # The name of a run outlives the agent: what was watched goes on.
            for id, its in backend.members.items():
                if its.record.seen_run and its.record.seen_run != its.record.stopped_run:
                    backend.seats[id] = Seat(backend, id, its.record.seen_run)
            self._begin(backend)
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKE_OVER):
                await asyncio.gather(*(backend.known.wait() for backend in self.all.values()))

    async def take_on(self, declared: Collection[BackendDeclaration]) -> None:
        """What a file that was read again has: new ones, and other keys in their files."""
        for each in declared:
            try:
                if (backend := self.all.get(each.name)) is None:
                    self._begin(await self._declare(each))
                    log.info("backend %s is new: the agent watches it", each.name)
                elif await backend.read_key_again():
                    log.info("backend %s: the agent uses the key now in its file", each.name)
            except WaError as error:
                log.error("cannot take on backend %s as it is now: %s", each.name, error)

    async def _declare(self, declared: BackendDeclaration) -> Backend:
        name = parse_instance_id(declared.name)
        await asyncio.to_thread(make_folder, self.root, name)
        self.all[name] = backend = Backend(declared, name, self)
        return backend

    def _begin(self, backend: Backend) -> None:
        self.tasks.start(backend.run(), f"backend {backend.name}")

    def look_now(self) -> None:
        """Check the servers that are away: the kernel's routes changed."""
        for backend in self.all.values():
            if backend.server is not None and not backend.up:
                backend.server.hurry()

    async def close(self) -> None:
        """The servers' sessions go on."""
        await self.tasks.cancel()

    # the sessions as units

    def units(self) -> Mapping[InstanceId, UnitStatus]:
        return {id: its.unit(id) for its in self.all.values() for id in its.seats}

    def needed(self, its: Member) -> Backend:
        if (backend := self.of(its)) is None:
            id, name = its.instance.id, its.instance.backend
            raise HostError(f"cannot start {id}: agent.toml declares no [[backend]] {name}")
        return backend

    # passes of sessions

    def of(self, its: Member) -> Backend | None:
        return self.all.get(its.instance.backend)

    def wait_reason(self, its: Member) -> str:
        """Why a session on a backend must wait; "" when it need not, or is on none."""
        if not its.instance.backend:
            return ""
        if (backend := self.of(its)) is None:
            return "backend_missing"
        if backend.down or its.instance.id in backend.away:
            return BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
        return "" if backend.circuit.lets(its.instance.id) else "backend_circuit"

    def why_away(self, its: Member) -> str:
        """In words; "" = its backend is not declared."""
        if (backend := self.of(its)) is None:
            return ""
        if backend.up:
            return "its backend is up again; the agent checks its sessions in turn"
        reason = BACKEND_UNCHECKED if backend.unchecked else BACKEND_DOWN
        return f"{WAIT_SENTENCES[reason]}: {backend.sentence}"

    def signals(self, its: Member) -> tuple[Signal, ...]:
        """A session of a backend that does not answer is not said to be well, though the backend
        may only blink: nothing has measured the session since."""
        if (backend := self.of(its)) is None:
            return ()
        if not backend.up:
            sentence = f"nothing measures it now: {self.why_away(its)}"
            return (Signal(UNMEASURED, Health.DEGRADED, sentence),)
        lacks = backend.claim is not None and backend.claim.reason == NO_PROOF
        return (Signal(NO_PROOF, Health.DEGRADED, backend.warning),) if lacks else ()

    def slack(self, its: Member) -> float:
        """Seconds that its server takes longer than a quick one for what is asked of a session."""
        return 0.0 if (backend := self.of(its)) is None else backend.slack

    def ask(self, its: Member, now: float) -> float | None:
        """None: its server answered a check within FRESH. A time: ask again then, or when woken."""
        backend = self.of(its)
        if backend is None or (backend.up and now - backend.checked_at <= FRESH):
            return None
        backend.asking.add(its.instance.id)
        if backend.server is not None:
            backend.server.hurry()
        return now + RETRY_AFTER

    def may_begin(self, its: Member) -> bool:
        """Whether its server's last check was good; a half-open circuit lets one session begin."""
        backend = self.of(its)
        return backend is None or (backend.up and backend.circuit.begin(its.instance.id))

    def may_ask(self, its: Member) -> bool:
        """Whether a probe can reach its server now."""
        backend = self.of(its)
        here = not its.instance.backend
        return here or (backend is not None and backend.up and its.instance.id not in backend.away)

    def server_version(self, name: str) -> str:
        """The version that the server itself told last; "" = none yet."""
        return self.all[name].version if name in self.all else ""

    def check_place(self, instance: Instance) -> None:
        """Refuse one whose backend is not declared or of another engine, or has it already."""
        what = f"cannot create {instance.id}"
        if (backend := self.all.get(instance.backend)) is None:
            known = ", ".join(self.all) or "none"
            raise InvalidRequest(
                f"{what}: engine {instance.engine} needs the name of a declared [[backend]] in its"
                f" settings, not {instance.backend!r:.60}; declared: {known}",
                field="settings.backend",
                code="unknown_backend",
            )
        if (kind := backend.declared.engine) != instance.engine:
            raise InvalidRequest(
                f"{what}: backend {backend.name} is of engine {kind}, not {instance.engine}",
                field="engine",
                code="wrong_engine",
            )
        if (holder := holder_of(backend, instance.remote)) not in (None, instance.id):
            cause = f"{instance.remote!r:.80} of {backend.name} is {holder} here already"
            raise Refused(f"{what}: {cause}", field="settings.remote", code="adopted")

    # requests; unknown names raise NotFound

    def views(self) -> Sequence[BackendView]:
        return [_view(backend) for backend in self.all.values()]

    def view(self, name: str) -> BackendView:
        return _view(self._find(name))

    async def sessions(self, name: str) -> tuple[RemoteSession, ...]:
        """The server's own list, read now."""
        return await check_now(self._find(name))

    async def check(self, name: str) -> BackendView:
        backend = self._find(name)
        await check_now(backend)
        await backend.circuit.is_noted()
        return _view(backend)

    async def reset(self, name: str) -> BackendView:
        """Close its circuit at once, by an operator's order."""
        backend = self._find(name)
        said = f"an operator closed the circuit of backend {name}"
        bound(Category.RECONNECT).info("%s", said)
        backend.circuit.close()
        await backend.circuit.is_noted()
        detail = {"backend": name}
        entry = JournalEntry("operator", said, Category.RECONNECT, None, time.time(), detail)
        await self.store.append(entry)
        return _view(backend)

    async def adopt(self, name: str, remote: str, id: InstanceId | None = None) -> InstanceId:
        return await self.adoption.adopt(self._find(name), remote, id)

    def _find(self, name: str) -> Backend:
        if (backend := self.all.get(name)) is None:
            cause = "agent.toml declares none of that name"
            raise NotFound(f"cannot find backend {name!r:.60}: {cause}")
        return backend


def make_folder(root: Path, name: InstanceId) -> None:
    with open_root(root, create=True) as top:
        if top.make(name, top.modes):
            top.sync()


def _view(backend: Backend) -> BackendView:
    claim, server = backend.claim, backend.server
    soon = None if server is None else server.next_check
    members = backend.members.values()
    return BackendView(
        name=backend.name,
        engine=backend.declared.engine,
        url=backend.declared.url,
        up=backend.up,
        reason=backend.reason,
        sentence=backend.sentence,
        warning=backend.warning,
        version=claim.version if claim else "",
        since_wall=backend.since_wall,
        checked_wall=backend.checked_wall,
        seconds=claim.seconds if claim else 0.0,
        sessions=claim.sessions if claim else None,
        held=len(backend.seats),
        connected=sum(its.record.status == "CONNECTED" for its in members),
        next_check_wall=None if soon is None else time.time() + soon,
        breaker=backend.circuit.shown,
    )
