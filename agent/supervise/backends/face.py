"""What a backend's server has, and how its sessions become instances of ours.

The public face of backends: what the API and the command line may ask of them.
"""

import fnmatch
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent.clock import boot_now
from agent.core.model import (
    Category,
    Instance,
    InstanceId,
    JournalEntry,
    RemoteSession,
    parse_instance_id,
)
from agent.core.view import BackendView, InstanceView
from agent.errors import InvalidRequest, LinkError, NotFound, Refused, TryLater, WaError
from agent.log import bound
from agent.store.database import Store
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import Backends
from agent.supervise.facts import Facts

log = logging.getLogger(__name__)

SLUG = 40
LET_GO = "let_go:"
"""What a person deleted here of a backend's sessions, by the backend's name."""
_NOT_OURS = re.compile(r"[^a-z0-9_-]+")
Create = Callable[[Instance], Awaitable[InstanceView]]


class BackendFace:
    """Everything that may be asked of backends. Unknown names raise NotFound."""

    def __init__(
        self,
        backends: Backends,
        facts: Mapping[InstanceId, Facts],
        store: Store,
        create: Create,
        *,
        discover_every: Callable[[], float],
    ) -> None:
        self._create = create
        self._backends = backends
        self._facts = facts
        self._store = store
        self._discover_every = discover_every
        backends.looked = self._look

    # reading

    def views(self) -> Sequence[BackendView]:
        return [self._view(one) for one in self._backends.all.values()]

    def view(self, name: str) -> BackendView:
        return self._view(self._find(name))

    async def sessions(self, name: str) -> list[RemoteSession]:
        """The server's own list, read now."""
        one = self._find(name)
        await self._read_list(one)
        return list(one.names)

    async def check(self, name: str) -> BackendView:
        one = self._find(name)
        await self._call(one, "check")
        await one.circuit.is_noted()
        return self._view(one)

    async def reset(self, name: str) -> BackendView:
        """Close its circuit at once: a person knows better."""
        one = self._find(name)
        bound(Category.RECONNECT).info("an operator closed the circuit of backend %s", name)
        one.circuit.close()
        await one.circuit.is_noted()
        said = f"an operator closed the circuit of backend {name}"
        detail = {"backend": name}
        entry = JournalEntry("operator", said, Category.RECONNECT, None, time.time(), detail)
        await self._store.append(entry)
        return self._view(one)

    # taking in

    async def adopt(self, name: str, remote: str, id: InstanceId | None = None) -> InstanceId:
        """Make an instance of one of the server's sessions; it is watched from then on."""
        one = self._find(name)
        await self._read_list(one)
        asked, remote = remote, session_meant(name, one.names, remote)
        if (holder := _holder(self._backends, one, remote)) is not None:
            raise Refused(
                f"cannot adopt {remote!r:.80} of {name}: the instance {holder} has it already",
                field="remote",
                code="adopted",
            )
        return await self._take_in(one, remote, id or self._free_id(one, asked))

    async def _look(self, one: BackendFacts) -> None:
        """Now and then: what is new over there and matches becomes an instance."""
        if boot_now() < one.next_look:
            return
        one.next_look = boot_now() + self._discover_every()
        if not one.declared.adopt:
            return
        try:
            await self._read_list(one)
        except WaError as error:
            log.warning("cannot read the sessions of backend %s: %s", one.name, error)
            return
        ours = {facts.instance.remote for facts in self._backends.members(one)}
        ours |= await self._let_go(one.name)
        for found in one.names:
            words = [word for word in (found.name, found.title) if word]
            if found.name in ours or not any(_matches(w, one.declared.adopt) for w in words):
                continue
            try:
                await self._take_in(one, found.name, None)
            except WaError as error:
                log.warning("cannot adopt a session of backend %s: %s", one.name, error)

    async def let_go(self, instance: Instance) -> None:
        """It was deleted here: what is found over there by itself is not taken in again."""
        names = await self._let_go(instance.backend)
        await self._keep_let_go(instance.backend, names | {instance.remote})

    async def _let_go(self, name: str) -> set[str]:
        return set(json.loads(await self._store.get_fact(LET_GO + name) or "[]"))

    async def _keep_let_go(self, name: str, names: set[str]) -> None:
        await self._store.put_facts({LET_GO + name: json.dumps(sorted(names))})

    async def _take_in(self, one: BackendFacts, remote: str, id: InstanceId | None) -> InstanceId:
        id = id or self._free_id(one, remote)
        if remote in (names := await self._let_go(one.name)):
            await self._keep_let_go(one.name, names - {remote})
        settings = {"backend": one.name, "remote": remote}
        made = await self._create(Instance(id, one.declared.engine, True, settings))
        return made.instance.id

    # hooks

    def hook_ok(self, name: str, secret: str) -> bool:
        kept = self._backends.hooks.get(name, "")
        right = hmac.compare_digest(kept.encode(), secret.encode(errors="replace"))
        return bool(kept) and right

    async def hook(self, name: str, told: Mapping[str, Any]) -> None:
        """What the server says by itself; its worker understands it."""
        one = self._find(name)
        one.hooks += 1
        await self._call(one, "hook", {"told": dict(told)})

    # inside

    def _find(self, name: str) -> BackendFacts:
        one = self._backends.all.get(name)
        if one is None:
            raise NotFound(
                f"cannot find backend {name!r:.60}: agent.toml declares none of that name"
            )
        return one

    async def _read_list(self, one: BackendFacts) -> None:
        told = (await self._call(one, "sessions")).get("sessions")
        rows = told if isinstance(told, list) else []
        one.names = tuple(
            RemoteSession(*(_text(row, key) for key in ("name", "status", "account", "title")))
            for row in rows
            if isinstance(row, dict) and _text(row, "name")
        )

    async def _call(
        self, one: BackendFacts, do: str, args: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        if one.link is None:
            raise TryLater(f"cannot ask backend {one.name}: {one.sentence}", code="backend_down")
        try:
            limit = one.declared.timeout + 5.0
            return await one.link.call(do, args or {}, timeout=limit)
        except LinkError as error:
            raise TryLater(
                f"cannot ask backend {one.name}: {error}", code="backend_down"
            ) from error

    def _free_id(self, one: BackendFacts, remote: str) -> InstanceId:
        """The server's own name where it may be an id and is free, else one made from it."""
        slug = _NOT_OURS.sub("-", remote.lower()).strip("-_")[:SLUG]
        if slug == remote and InstanceId(slug) not in self._facts:
            return parse_instance_id(slug)
        mark = hashlib.sha256(f"{one.name}/{remote}".encode()).hexdigest()[:6]
        return parse_instance_id(f"{slug}-{mark}" if slug else f"{one.name}"[:SLUG] + f"-{mark}")

    def _view(self, one: BackendFacts) -> BackendView:
        server, members = one.server, self._backends.members(one)
        reason = "" if one.up else (server.reason if server else "worker_away")
        return BackendView(
            name=one.name,
            engine=one.declared.engine,
            url=one.declared.url,
            worker_state=one.unit.state,
            pid=one.unit.main_pid,
            up=one.up,
            reason=reason,
            sentence=one.sentence,
            warning=one.warning,
            version=server.version if server else "",
            since_wall=one.since_wall,
            checked_wall=one.checked_wall or None,
            seconds=server.seconds if server else 0.0,
            sessions=server.sessions if server else None,
            held=len(one.roster),
            connected=sum(facts.record.status == "CONNECTED" for facts in members),
            next_check_wall=one.next_check_wall if one.link is not None else None,
            hooks=one.hooks,
            breaker=one.circuit.shown,
        )


def session_meant(backend: str, there: Sequence[RemoteSession], asked: str) -> str:
    """What the server calls the session that a person named by its name or its title there."""
    if any(found.name == asked for found in there):
        return asked
    titled = [found.name for found in there if found.title and found.title == asked]
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


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value[:200] if isinstance(value, str) else ""


def check_place(backends: Backends, instance: Instance) -> None:
    """Refuse an instance whose backend is none of ours, or of another kind, or taken."""
    one = backends.all.get(instance.backend)
    if one is None:
        known = ", ".join(backends.all) or "none"
        raise InvalidRequest(
            f"cannot create {instance.id}: engine {instance.engine} needs the name of a"
            f" declared [[backend]] in its settings, not {instance.backend!r:.60};"
            f" declared: {known}",
            field="settings.backend",
            code="unknown_backend",
        )
    if one.declared.engine != instance.engine:
        raise InvalidRequest(
            f"cannot create {instance.id}: backend {one.name} is of engine"
            f" {one.declared.engine}, not {instance.engine}",
            field="engine",
            code="wrong_engine",
        )
    holder = _holder(backends, one, instance.remote)
    if holder is not None and holder != instance.id:
        raise Refused(
            f"cannot create {instance.id}: {instance.remote!r:.80} of {one.name} is"
            f" {holder} here already",
            field="settings.remote",
            code="adopted",
        )


def _holder(backends: Backends, one: BackendFacts, remote: str) -> InstanceId | None:
    found = (each.id for each in backends.members(one) if each.instance.remote == remote)
    return next(found, None)
