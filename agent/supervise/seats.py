"""Where sessions run: in workers of their own, in packs, in the tasks of their servers.

A session on a backend has no process. Starting it makes its server's task watch it, stopping it
ends that; the session on the server stays as it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.backends.declared import Backends
from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitStatus
from agent.host.base import Host
from agent.supervise.facts import Facts
from agent.supervise.packs import Packs


class Seats:
    def __init__(
        self,
        host: Host,
        packs: Packs,
        backends: Backends,
        facts: Mapping[InstanceId, Facts],
        no_login: Callable[[float], None],
    ) -> None:
        """`no_login` is called for each start that found its session connected already."""
        self._host, self._packs, self._backends = host, packs, backends
        self._facts, self._no_login = facts, no_login
        self.boot_id = host.boot_id

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        return {**await self._host.list(), **self._packs.list(), **self._backends.units()}

    async def status(self, id: InstanceId) -> UnitStatus:
        if (remote := self._remote(id)) is None:
            return await self._local(id).status(id)
        backend = self._backends.of(remote)
        return UNIT_ABSENT if backend is None else backend.unit(id)

    async def start(self, id: InstanceId) -> None:
        if (remote := self._remote(id)) is None:
            await self._start_worker(id)
        elif not await self._backends.needed(remote).start(id):
            self._no_login(boot_now())

    async def stop(self, id: InstanceId) -> None:
        if (remote := self._remote(id)) is None:
            await self._local(id).stop(id)
        elif (backend := self._backends.of(remote)) is not None:
            backend.leave(id)

    async def restart(self, id: InstanceId) -> None:
        facts = self._facts.get(id)
        if facts is not None and facts.instance.backend:
            await self._backends.needed(facts).restart(id)
        elif facts is not None and (facts.pack or self._packs.takes(facts)):
            await self.stop(id)
            await self._start_worker(id)
        else:
            await self._host.restart(id)

    async def reset_failed(self, id: InstanceId) -> None:
        if self._remote(id) is None:
            await self._local(id).reset_failed(id)

    def limit_memory(self, id: InstanceId, most: int) -> None:
        """A member of a pack has none: the pack ends a Node that uses too much."""
        if self._remote(id) is None and not self._packs.holds(id):
            self._host.limit_memory(id, most)

    def enabled_by_operator(self, id: InstanceId) -> bool:
        return self._remote(id) is None and self._host.enabled_by_operator(id)

    def link_path(self, id: InstanceId) -> Path:
        return self._local(id).link_path(id)

    def log_path(self, id: InstanceId) -> Path | None:
        return self._local(id).log_path(id)

    def _remote(self, id: InstanceId) -> Facts | None:
        facts = self._facts.get(id)
        return facts if facts is not None and facts.instance.backend else None

    def _local(self, id: InstanceId) -> Host | Packs:
        return self._packs if self._packs.holds(id) else self._host

    async def _start_worker(self, id: InstanceId) -> None:
        """In its pack, or in a worker of its own; a worker that runs stays where it is."""
        facts = self._facts.get(id)
        if facts is not None and not (await self.status(id)).runs:
            await self._packs.place(facts)
        if facts is not None and facts.pack:
            await self._packs.start(facts)
        else:
            await self._host.start(id)
