"""How sessions of a backend's server become instances, by an operator's order or by `adopt`."""

import asyncio
import fnmatch
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from urllib.parse import urlsplit

from agent.backends.backend import Backend, Shared
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.model import Instance, InstanceId, RemoteSession, parse_instance_id
from agent.core.words import ADOPTED
from agent.errors import NotFound, Refused, TryLater, WaError

log = logging.getLogger(__name__)

LET_GO = "let_go:{}/"
"""A fact in the database of a session whose instance an operator deleted; the server's name of it
follows."""
SLUG = 40
DISCOVER_EVERY = 60.0
ADVICE = "remove one of the two, or let adopt of each name other sessions"
_NOT_OURS = re.compile(r"[^a-z0-9_-]+")


class Adoption:
    def __init__(self, shared: Shared) -> None:
        self._shared, self._store = shared, shared.store
        self._refused: dict[tuple[str, str], str] = {}
        """By backend and session: why it is not adopted, as the log has it."""
        self._turn = asyncio.Lock()
        """One session after another: an order is not carried out a second time meanwhile."""

    async def adopt(self, backend: Backend, asked: str, id: InstanceId | None = None) -> InstanceId:
        """Make an instance of the session that the server or its title calls `asked`. TryLater
        where the server gives no list."""
        async with self._turn:
            # Deleted once, and wanted again: also where the server gives no list now.
            await self._store.forget_facts([LET_GO.format(backend.name) + asked])
            remote = session_meant(backend.name, await check_now(backend), asked)
            if (holder := holder_of(backend, remote)) is not None:
                what = f"cannot adopt {remote!r:.80} of {backend.name}"
                cause = f"the instance {holder} has it already"
                raise Refused(f"{what}: {cause}", field="remote", code="adopted")
            return await self._take_in(backend, remote, id or self._free_id(backend, asked))

    async def discover(self, backend: Backend) -> None:
        """Make instances of the server's new sessions that match `adopt`, when it is time."""
        if backend.up and boot_now() >= backend.next_look:
            backend.next_look = boot_now() + DISCOVER_EVERY
            if backend.declared.adopt:
                async with self._turn:
                    await self._adopt_new(backend)

    async def _adopt_new(self, backend: Backend) -> None:
        try:
            there = await check_now(backend)
        except WaError as error:
            log.warning("cannot read the sessions of backend %s: %s", backend.name, error)
            return
        prefix = LET_GO.format(backend.name)
        ours = {its.instance.remote for its in backend.members.values()}
        ours |= {name.removeprefix(prefix) for name in await self._store.get_facts(prefix)}
        for session in there:
            words = [word for word in (session.name, session.title) if word]
            patterns = backend.declared.adopt
            wanted = any(fnmatch.fnmatchcase(word, it) for word in words for it in patterns)
            if session.name in ours or not wanted:
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
        """An operator deleted the instance: `discover` must not make it again."""
        await self._store.put_facts({LET_GO.format(instance.backend) + instance.remote: ""})

    async def _take_in(self, backend: Backend, remote: str, id: InstanceId | None) -> InstanceId:
        id = id or self._free_id(backend, remote)
        settings = {"backend": backend.name, "remote": remote, ADOPTED: True}
        await self._shared.create(Instance(id, backend.declared.engine, True, settings))
        await self._store.forget_facts([LET_GO.format(backend.name) + remote])
        return id

    def _free_id(self, backend: Backend, remote: str) -> InstanceId:
        """The server's name where it is a free id, else an id made from it."""
        slug = _NOT_OURS.sub("-", remote.lower()).strip("-_")[:SLUG]
        if slug == remote and InstanceId(slug) not in self._shared.instances:
            return parse_instance_id(slug)
        mark = hashlib.sha256(f"{backend.name}/{remote}".encode()).hexdigest()[:6]
        return parse_instance_id(f"{slug or backend.name[:SLUG]}-{mark}")


async def check_now(backend: Backend) -> tuple[RemoteSession, ...]:
    """Read the server's list; TryLater where none comes."""
    server = backend.server
    if server is not None and (await server.check()).up:
        return server.sessions
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


def holder_of(backend: Backend, remote: str) -> InstanceId | None:
    return next((id for id, it in backend.members.items() if it.instance.remote == remote), None)


def one_server(backends: Sequence[BackendDeclaration]) -> Iterator[str]:
    """A sentence for each two backends that adopt the same sessions of one server: each would be
    watched and repaired twice."""
    for first, second in combinations(backends, 2):
        pairs = [(a, b) for a in first.adopt for b in second.adopt]
        overlap = any(fnmatch.fnmatchcase(a, b) or fnmatch.fnmatchcase(b, a) for a, b in pairs)
        same = first.engine == second.engine and _place(first.url) == _place(second.url)
        if overlap and same:
            yield (
                f"backend {first.name} and backend {second.name} are one server"
                f" ({urlsplit(first.url).netloc.rpartition('@')[2]}), and adopt of both takes the"
                " same sessions: each of them becomes two instances, which both repair it"
            )


def _place(url: str) -> tuple[str | None, int, str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return host, port, parts.path.rstrip("/")
