"""Passes of backends: judge the server's outage, adopt its sessions; and what the API may ask."""

import time
from collections.abc import Sequence

from agent.clock import boot_now
from agent.core.model import Category, InstanceId, JournalEntry, RemoteSession
from agent.core.view import BackendView
from agent.errors import NotFound
from agent.log import bound
from agent.store.database import Store
from agent.supervise.backends.adoption import Adoption, check_now
from agent.supervise.backends.backend import PATIENCE, Backend
from agent.supervise.backends.registry import Backends

LOOK_EVERY = 30.0


class BackendFace:
    """Unknown names raise NotFound."""

    def __init__(self, backends: Backends, adoption: Adoption, store: Store) -> None:
        self._backends, self._adoption, self._store = backends, adoption, store

    async def run_pass(self, id: InstanceId) -> float | None:
        """Return when this backend must be looked at again at the latest."""
        if (backend := self._backends.all.get(id)) is None:
            return None
        if backend.served is None:
            await self._backends.start(backend)
            backend.wake_members()
        backend.judge()
        if backend.up:
            await self._adoption.discover(backend)
        now = boot_now()
        if backend.served is None:
            return min(max(backend.next_start, now + 0.5), now + LOOK_EVERY)
        again = now + LOOK_EVERY
        if backend.up:
            again = min(again, max(backend.next_look, now))
        if backend.away_since is not None and not backend.down:
            again = min(again, backend.away_since + PATIENCE)
        return again

    def views(self) -> Sequence[BackendView]:
        return [_view(backend) for backend in self._backends.all.values()]

    def view(self, name: str) -> BackendView:
        return _view(self._find(name))

    async def sessions(self, name: str) -> list[RemoteSession]:
        """The server's own list, read now."""
        backend = self._find(name)
        await check_now(backend)
        return list(backend.names)

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
        await self._store.append(entry)
        return _view(backend)

    async def adopt(self, name: str, remote: str, id: InstanceId | None = None) -> InstanceId:
        return await self._adoption.adopt(self._find(name), remote, id)

    def _find(self, name: str) -> Backend:
        if (backend := self._backends.all.get(name)) is None:
            cause = "agent.toml declares none of that name"
            raise NotFound(f"cannot find backend {name!r:.60}: {cause}")
        return backend


def _view(backend: Backend) -> BackendView:
    server = backend.server
    soon = None if backend.served is None else backend.served.next_check
    return BackendView(
        name=backend.name,
        engine=backend.declared.engine,
        url=backend.declared.url,
        up=backend.up,
        reason=backend.reason,
        sentence=backend.sentence,
        warning=backend.warning,
        version=server.version if server else "",
        since_wall=backend.since_wall,
        checked_wall=backend.checked_wall,
        seconds=server.seconds if server else 0.0,
        sessions=server.sessions if server else None,
        held=len(backend.roster),
        connected=sum(facts.record.status == "CONNECTED" for facts in backend.members),
        next_check_wall=None if soon is None else time.time() + soon,
        breaker=backend.circuit.shown,
    )
