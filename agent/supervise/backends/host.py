"""The host as supervision sees it: local workers, members of packs, sessions on servers.

A session on a backend has no process. Starting it makes its server's task watch it, stopping it
ends that; the session on the server stays as it is.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.core.reconnect import needs_connect
from agent.errors import EngineError, HostError
from agent.host.base import Host
from agent.link.heard import parse_claim
from agent.supervise.backends.backend import Backend, ServerLink
from agent.supervise.backends.registry import Backends
from agent.supervise.facts import Facts
from agent.supervise.packs import Packs

FIRST_LOOK = 15.0
RESTART_TIMEOUT = 120.0
"""A server may take this long to make a session, or to have it connected again."""


class BackendHost:
    """A Host whose instances are workers, members of a pack or, on a backend, watched sessions."""

    def __init__(
        self,
        host: Host,
        backends: Backends,
        facts_of: Callable[[InstanceId], Facts | None],
        no_login: Callable[[float], None],
        packs: Packs,
    ) -> None:
        """`no_login` is called for each start that found its session connected already."""
        self.name = host.name
        self._host = host
        self._backends = backends
        self._facts_of = facts_of
        self._no_login = no_login
        self._packs = packs

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        units = {**await self._host.list(), **self._packs.list()}
        for backend in self._backends.all.values():
            units |= {id: _unit(backend, id) for id in backend.roster}
        return units

    async def status(self, instance: InstanceId) -> UnitStatus:
        if not (name := self._backend_of(instance)):
            packed = self._packs.holds(instance)
            return await (self._packs if packed else self._host).status(instance)
        backend = self._backends.all.get(name)
        return UNIT_ABSENT if backend is None else _unit(backend, instance)

    async def start(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            await self._start_worker(instance)
            return
        backend = self._declared(name, instance)
        new = instance not in backend.roster
        backend.roster.setdefault(instance, secrets.token_hex(8))
        try:
            await backend.hold(instance)
            if await self._needs_connect(backend, instance):
                await self._call(backend, "connect", instance, RESTART_TIMEOUT)
            else:
                self._no_login(boot_now())
        except BaseException as error:
            if isinstance(error, EngineError) and error.code == "zombie":
                return  # one that hangs is watched, and a repair restarts it
            if new:  # the start is tried again as a whole
                backend.leave(instance)
            raise

    async def stop(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            await (self._packs if self._packs.holds(instance) else self._host).stop(instance)
        elif (backend := self._backends.all.get(name)) is not None:
            backend.leave(instance)

    async def restart(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            facts = self._facts_of(instance)
            if facts is not None and (facts.pack or self._packs.takes(facts)):
                await self.stop(instance)
                await self._start_worker(instance)
            else:
                await self._host.restart(instance)
            return
        backend = self._declared(name, instance)
        backend.roster.setdefault(instance, secrets.token_hex(8))
        await backend.hold(instance)
        await self._call(backend, "restart", instance, RESTART_TIMEOUT)

    async def reset_failed(self, instance: InstanceId) -> None:
        if not self._backend_of(instance):
            packed = self._packs.holds(instance)
            await (self._packs if packed else self._host).reset_failed(instance)

    def limit_memory(self, instance: InstanceId, most: int) -> None:
        """A member of a pack has none: the pack ends a Node that uses too much."""
        if not self._backend_of(instance) and not self._packs.holds(instance):
            self._host.limit_memory(instance, most)

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return not self._backend_of(instance) and self._host.enabled_by_operator(instance)

    def link_path(self, instance: InstanceId) -> Path:
        packed = self._packs.holds(instance)
        return (self._packs if packed else self._host).link_path(instance)

    def log_path(self, instance: InstanceId) -> Path | None:
        packed = self._packs.holds(instance)
        return (self._packs if packed else self._host).log_path(instance)

    def boot_id(self) -> str:
        return self._host.boot_id()

    @property
    def connected(self) -> bool | None:
        return self._host.connected

    @property
    def jobs_pending(self) -> int:
        return self._host.jobs_pending

    async def missing_address(self) -> str:
        return await self._host.missing_address()

    async def agent_is_restarting(self) -> bool:
        return await self._host.agent_is_restarting()

    async def close(self, *, leave_workers: bool) -> None:
        await self._host.close(leave_workers=leave_workers)

    def _backend_of(self, instance: InstanceId) -> str:
        facts = self._facts_of(instance)
        return facts.instance.backend if facts is not None else ""

    async def _start_worker(self, instance: InstanceId) -> None:
        """In its pack, or in a worker of its own; a worker that runs stays where it is."""
        facts = self._facts_of(instance)
        if facts is not None and not (await self.status(instance)).runs:
            await self._packs.place(facts)
        if facts is not None and facts.pack:
            await self._packs.start(facts)
        else:
            await self._host.start(instance)

    def _declared(self, name: str, instance: InstanceId) -> Backend:
        backend = self._backends.all.get(name)
        if backend is None:
            raise HostError(f"cannot start {instance}: agent.toml declares no [[backend]] {name}")
        return backend

    async def _needs_connect(self, backend: Backend, instance: InstanceId) -> bool:
        """Ask the server: the agent leaves a session alone that is connected already."""
        answer = await self._call(backend, "probe", instance, FIRST_LOOK)
        facts = self._facts_of(instance)
        paired = facts is None or facts.record.paired
        adopted = facts is None or facts.instance.adopted
        return needs_connect(parse_claim(answer["claim"]), paired=paired, adopted=adopted)

    async def _call(
        self, backend: Backend, do: str, instance: InstanceId, limit: float
    ) -> Mapping[str, Any]:
        if backend.served is None:
            raise HostError(f"cannot {do} {instance} on {backend.name}: {backend.sentence}")
        return await ServerLink(backend, backend.served, instance).call(do, timeout=limit)


def _unit(backend: Backend, instance: InstanceId) -> UnitStatus:
    run = backend.roster.get(instance)
    if run is None:
        return UNIT_ABSENT
    return UnitStatus(UnitState.ACTIVE, run=run, since=backend.started_at)
