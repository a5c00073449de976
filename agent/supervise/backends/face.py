"""The public face of backends: what the API and the command line may ask of them."""

import time
from collections.abc import Sequence

from agent.core.model import Category, InstanceId, JournalEntry, RemoteSession
from agent.core.view import BackendView
from agent.errors import NotFound
from agent.log import bound
from agent.store.database import Store
from agent.supervise.backends.adoption import Adoption, check_now
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import Backends


class BackendFace:
    """Unknown names raise NotFound."""

    def __init__(self, backends: Backends, adoption: Adoption, store: Store) -> None:
        self._backends = backends
        self._adoption = adoption
        self._store = store
        self.let_go = adoption.let_go

    def views(self) -> Sequence[BackendView]:
        return [self._view(backend) for backend in self._backends.all.values()]

    def view(self, name: str) -> BackendView:
        return self._view(self._find(name))

    async def sessions(self, name: str) -> list[RemoteSession]:
        """The server's own list, read now."""
        backend = self._find(name)
        await check_now(backend)
        return list(backend.names)

    async def check(self, name: str) -> BackendView:
        backend = self._find(name)
        await check_now(backend)
        await backend.circuit.is_noted()
        return self._view(backend)

    async def reset(self, name: str) -> BackendView:
        """Close its circuit at once, by an operator's order."""
        backend = self._find(name)
        bound(Category.RECONNECT).info("an operator closed the circuit of backend %s", name)
        backend.circuit.close()
        await backend.circuit.is_noted()
        said = f"an operator closed the circuit of backend {name}"
        detail = {"backend": name}
        entry = JournalEntry("operator", said, Category.RECONNECT, None, time.time(), detail)
        await self._store.append(entry)
        return self._view(backend)

    async def adopt(self, name: str, remote: str, id: InstanceId | None = None) -> InstanceId:
        return await self._adoption.adopt(self._find(name), remote, id)

    def _find(self, name: str) -> BackendFacts:
        backend = self._backends.all.get(name)
        if backend is None:
            raise NotFound(
                f"cannot find backend {name!r:.60}: agent.toml declares none of that name"
            )
        return backend

    def _view(self, backend: BackendFacts) -> BackendView:
        server, members = backend.server, self._backends.members(backend)
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
            checked_wall=backend.checked_wall or None,
            seconds=server.seconds if server else 0.0,
            sessions=server.sessions if server else None,
            held=len(backend.roster),
            connected=sum(facts.record.status == "CONNECTED" for facts in members),
            next_check_wall=_soon(backend),
            breaker=backend.circuit.shown,
        )


def _soon(backend: BackendFacts) -> float | None:
    seconds = None if backend.served is None else backend.served.next_check
    return None if seconds is None else time.time() + seconds
