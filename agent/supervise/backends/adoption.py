"""How sessions of a backend's server become instances, by an operator's order or by `adopt`."""

import asyncio
import fnmatch
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agent.clock import boot_now
from agent.core.model import Instance, InstanceId, RemoteSession, parse_instance_id
from agent.core.view import InstanceView
from agent.core.words import ADOPTED
from agent.errors import InvalidRequest, NotFound, Refused, TryLater, WaError
from agent.store.database import Store
from agent.supervise.backends.backend import Backend
from agent.supervise.backends.registry import Backends
from agent.supervise.facts import Facts

log = logging.getLogger(__name__)

LET_GO, ORDERED = "let_go:{}/", "adopt_order:{}/"
"""Facts in the database of sessions that are no instances; the server's name follows. Those whose
instances an operator deleted, and those to adopt (the id, or "") while the server gave no list."""
SLUG = 40
DISCOVER_EVERY = 60.0
ORDER_AGAIN = 5.0
"""Seconds until an order that the server gave no list for is tried again."""
_FINAL = (Refused, NotFound, InvalidRequest)
"""Errors that tell that another try of the same order would end the same way."""
_NOT_OURS = re.compile(r"[^a-z0-9_-]+")


class Adoption:
    def __init__(
        self,
        backends: Backends,
        facts: Mapping[InstanceId, Facts],
        store: Store,
        create: Callable[[Instance], Awaitable[InstanceView]],
    ) -> None:
        self._backends, self._facts, self._store = backends, facts, store
        self._create = create
        self._refused: dict[tuple[str, str], str] = {}
        """By backend and session: why it is not adopted, as the log has it."""
        self._turn = asyncio.Lock()
        """One session after another: an order is not carried out a second time meanwhile."""

    async def adopt(self, backend: Backend, asked: str, id: InstanceId | None = None) -> InstanceId:
        """Make an instance of the session that the server or its title calls `asked`. TryLater
        where that cannot be done now: the order is kept until it is done, or cannot be."""
        async with self._turn:
            return await self._try_order(backend, asked, id)

    async def _try_order(self, backend: Backend, asked: str, id: InstanceId | None) -> InstanceId:
        order = ORDERED.format(backend.name) + asked
        await self._store.put_facts({order: id or ""})
        try:
            made = await self._adopt(backend, asked, id)
        except _FINAL:
            await self._store.forget_facts([order])
            raise
        except WaError as error:
            backend.next_look = boot_now() + ORDER_AGAIN
            kept = f"the order to adopt {asked!r:.80} is kept, and the agent tries it again"
            raise TryLater(f"{error}; {kept}", code=error.code) from error
        await self._store.forget_facts([order])
        return made

    async def _adopt(self, backend: Backend, asked: str, id: InstanceId | None) -> InstanceId:
        await check_now(backend)
        remote = session_meant(backend.name, backend.names, asked)
        if (holder := _holder(backend, remote)) is not None:
            raise Refused(
                f"cannot adopt {remote!r:.80} of {backend.name}: the instance {holder} has it"
                " already",
                field="remote",
                code="adopted",
            )
        return await self._take_in(backend, remote, id or self._free_id(backend, asked))

    async def _carry_out_orders(self, backend: Backend) -> None:
        """Adopt what an operator asked for while the server gave no list."""
        prefix = ORDERED.format(backend.name)
        for order, id in (await self._store.get_facts(prefix)).items():
            asked = order.removeprefix(prefix)
            try:
                await self._adopt(backend, asked, parse_instance_id(id) if id else None)
            except _FINAL as error:
                if error.code != "adopted":  # else the agent ended before it could note that
                    log.warning("an order to adopt is dropped: %s", error)
            except WaError as error:
                log.debug("cannot adopt %s of %s yet: %s", asked, backend.name, error)
                backend.next_look = boot_now() + ORDER_AGAIN
                continue
            await self._store.forget_facts([order])

    async def discover(self, backend: Backend) -> None:
        """Make instances of the server's new sessions that match `adopt`, when it is time."""
        if boot_now() < backend.next_look:
            return
        backend.next_look = boot_now() + DISCOVER_EVERY
        async with self._turn:
            await self._carry_out_orders(backend)
            if backend.declared.adopt:
                await self._adopt_new(backend)

    async def _adopt_new(self, backend: Backend) -> None:
        try:
            await check_now(backend)
        except WaError as error:
            log.warning("cannot read the sessions of backend %s: %s", backend.name, error)
            return
        prefix = LET_GO.format(backend.name)
        ours = {facts.instance.remote for facts in backend.members}
        ours |= {name.removeprefix(prefix) for name in await self._store.get_facts(prefix)}
        for session in backend.names:
            words = [word for word in (session.name, session.title) if word]
            if session.name in ours or not any(_matches(w, backend.declared.adopt) for w in words):
                continue
            key = (backend.name, session.name)
            try:
                await self._take_in(backend, session.name, None)
                self._refused.pop(key, None)
            except WaError as error:
                if self._refused.get(key) != str(error):
                    log.warning("cannot adopt a session of backend %s: %s", backend.name, error)
                self._refused[key] = str(error)

    async def let_go(self, instance: Instance) -> None:
        """An operator deleted the instance: `discover` must not make it again, and what was asked
        before counts no more."""
        await self._store.put_facts({LET_GO.format(instance.backend) + instance.remote: ""})
        await self._store.forget_facts([ORDERED.format(instance.backend) + instance.remote])

    async def _take_in(self, backend: Backend, remote: str, id: InstanceId | None) -> InstanceId:
        id = id or self._free_id(backend, remote)
        settings = {"backend": backend.name, "remote": remote, ADOPTED: True}
        made = await self._create(Instance(id, backend.declared.engine, True, settings))
        await self._store.forget_facts([LET_GO.format(backend.name) + remote])
        return made.instance.id

    def _free_id(self, backend: Backend, remote: str) -> InstanceId:
        """The server's name where it is a free id, else an id made from it."""
        slug = _NOT_OURS.sub("-", remote.lower()).strip("-_")[:SLUG]
        if slug == remote and InstanceId(slug) not in self._facts:
            return parse_instance_id(slug)
        mark = hashlib.sha256(f"{backend.name}/{remote}".encode()).hexdigest()[:6]
        return parse_instance_id(f"{slug or backend.name[:SLUG]}-{mark}")


async def check_now(backend: Backend) -> None:
    """Read the server's list; TryLater where none comes."""
    if backend.served is not None and (await backend.served.check()).up:
        return
    raise TryLater(f"cannot ask backend {backend.name}: {backend.sentence}", code="backend_down")


def session_meant(backend: str, there: Sequence[RemoteSession], asked: str) -> str:
    """The server's name of the session that an operator called by its name or its title."""
    if any(session.name == asked for session in there):
        return asked
    titled = [session.name for session in there if session.title == asked != ""]
    if len(titled) > 1:
        raise Refused(
            f"cannot adopt {asked!r:.80}: {backend} has {len(titled)} sessions of that name;"
            f" take one of {', '.join(titled[:5])}",
            field="remote",
            code="ambiguous",
        )
    if not titled:
        raise NotFound(f"cannot adopt {asked!r:.80}: {backend} has no such session")
    return titled[0]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_place(backends: Backends, instance: Instance) -> None:
    """Refuse an instance whose backend is not declared or of another engine, or has it already."""
    backend = backends.all.get(instance.backend)
    if backend is None:
        known = ", ".join(backends.all) or "none"
        raise InvalidRequest(
            f"cannot create {instance.id}: engine {instance.engine} needs the name of a"
            f" declared [[backend]] in its settings, not {instance.backend!r:.60};"
            f" declared: {known}",
            field="settings.backend",
            code="unknown_backend",
        )
    if backend.declared.engine != instance.engine:
        raise InvalidRequest(
            f"cannot create {instance.id}: backend {backend.name} is of engine"
            f" {backend.declared.engine}, not {instance.engine}",
            field="engine",
            code="wrong_engine",
        )
    holder = _holder(backend, instance.remote)
    if holder is not None and holder != instance.id:
        raise Refused(
            f"cannot create {instance.id}: {instance.remote!r:.80} of {backend.name} is"
            f" {holder} here already",
            field="settings.remote",
            code="adopted",
        )


def _holder(backend: Backend, remote: str) -> InstanceId | None:
    return next((its.id for its in backend.members if its.instance.remote == remote), None)
