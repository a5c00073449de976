"""Which sessions a backend's worker has: its roster file, and the calls that change it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from agent.core.model import InstanceId
from agent.errors import WaError
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.files import write_roster
from agent.supervise.facts import Facts


class Seats:
    def __init__(self, root: Path, facts: Mapping[InstanceId, Facts]) -> None:
        self._root = root
        self._facts = facts
        self._files = asyncio.Lock()
        self._starting: set[InstanceId] = set()
        """Held by the worker, and not in the file yet."""

    async def take(self, backend: BackendFacts, id: InstanceId) -> None:
        settings = dict(self._facts[id].instance.settings)
        if backend.roster.get(id) != settings:
            backend.roster[id] = settings
            await self._write(backend)
        if backend.link is not None:
            await backend.link.call("hold", {"id": id, "settings": settings})

    @contextlib.asynccontextmanager
    async def started(self, backend: BackendFacts, id: InstanceId) -> AsyncIterator[None]:
        """A seat that is kept only if what is done in it succeeds: where the server did not answer,
        or the agent was killed, the start is tried again as a whole."""
        new = id not in backend.roster
        if new:
            self._starting.add(id)
        try:
            await self.take(backend, id)
            yield
        except BaseException:
            if new:
                with contextlib.suppress(WaError):
                    await self.leave(backend, id)
            raise
        finally:
            self._starting.discard(id)
        if new:
            await self._write(backend)

    async def leave(self, backend: BackendFacts, id: InstanceId) -> None:
        if backend.roster.pop(id, None) is not None:
            await self._write(backend)
        backend.words.pop(id, None)
        forget_listener(backend, id)
        if backend.link is not None:
            await backend.link.call("release", {"id": id})

    async def drop_strangers(self, backend: BackendFacts) -> None:
        for id in [id for id in backend.roster if id not in self._facts]:
            await self.leave(backend, id)

    async def _write(self, backend: BackendFacts) -> None:
        async with self._files:  # the newest roster is written last
            roster = {id: kept for id, kept in backend.roster.items() if id not in self._starting}
            await asyncio.to_thread(write_roster, self._root, backend.name, roster)


def forget_listener(backend: BackendFacts, id: InstanceId) -> None:
    backend.listener.pop(id, None)
