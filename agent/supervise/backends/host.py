"""The host as supervision sees it: local workers, and seats in the workers of backends.

A session on a backend has no process of its own. Starting it means that its backend's worker
holds it, stopping it that the worker lets go; the session over there is not touched by that.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.core.reconnect import needs_connect
from agent.errors import EngineError, HostError
from agent.host.base import Host, Limits
from agent.link.messages import parse_claim
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import Backends
from agent.supervise.facts import Facts
from agent.supervise.packs import Packs

HOLD_TIMEOUT = 10.0
FIRST_LOOK = 15.0
RESTART_TIMEOUT = 120.0
"""A server may take this long to have a session connected again."""


class Seats:
    """A Host for both kinds: whose instance is on a backend has a seat, the others a worker."""

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
        found = dict(await self._host.list())
        for one in self._backends.all.values():
            found |= {id: _seat(one) for id in one.roster}
        return found

    async def status(self, instance: InstanceId) -> UnitStatus:
        if not (name := self._backend_of(instance)):
            return await self._host.status(instance)
        one = self._backends.all.get(name)
        return UNIT_ABSENT if one is None or instance not in one.roster else _seat(one)

    async def start(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            await self._place(instance)
            await self._host.start(instance)
            return
        one = self._reached(name, instance)
        await self._backends.seats.take(one, instance)
        if await self._needs_connect(one, instance):
            await self._call(one, "connect", instance, HOLD_TIMEOUT)
        else:
            self._no_login(boot_now())

    async def stop(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            await self._host.stop(instance)
        elif (one := self._backends.all.get(name)) is not None:
            await self._backends.seats.leave(one, instance)

    async def restart(self, instance: InstanceId) -> None:
        if not (name := self._backend_of(instance)):
            await self._place(instance)
            await self._host.restart(instance)
            return
        one = self._reached(name, instance)
        await self._backends.seats.take(one, instance)
        await self._call(one, "restart", instance, RESTART_TIMEOUT)

    async def reset_failed(self, instance: InstanceId) -> None:
        if not self._backend_of(instance):
            await self._host.reset_failed(instance)

    async def set_limits(self, instance: InstanceId, limits: Limits) -> None:
        if not self._backend_of(instance):
            await self._host.set_limits(instance, limits)

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return not self._backend_of(instance) and self._host.enabled_by_operator(instance)

    def link_path(self, instance: InstanceId) -> Path:
        return self._host.link_path(instance)

    def log_path(self, instance: InstanceId) -> Path | None:
        return self._host.log_path(instance)

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

    async def _place(self, instance: InstanceId) -> None:
        if (facts := self._facts_of(instance)) is not None:
            await self._packs.place(facts)

    def _reached(self, name: str, instance: InstanceId) -> BackendFacts:
        one = self._backends.all.get(name)
        if one is None:
            raise HostError(f"cannot start {instance}: agent.toml declares no [[backend]] {name}")
        if one.link is None:
            raise HostError(f"cannot start {instance} on {name}: {one.sentence}")
        return one

    async def _needs_connect(self, one: BackendFacts, instance: InstanceId) -> bool:
        """Ask the session itself: one that is connected already is left alone."""
        try:
            told = await self._call(one, "probe", instance, FIRST_LOOK)
        except EngineError as error:
            if error.code == "backend_down":
                return False  # the next probe tells
            raise
        found = told.get("claim")
        facts = self._facts_of(instance)
        paired = facts is None or facts.record.paired
        return needs_connect(parse_claim(found if isinstance(found, dict) else {}), paired=paired)

    async def _call(
        self, one: BackendFacts, do: str, instance: InstanceId, limit: float
    ) -> Mapping[str, object]:
        link = one.link
        if link is None:
            raise HostError(f"cannot {do} {instance} on {one.name}: {one.sentence}")
        async with asyncio.timeout(limit + 5.0):
            return await one.circuit.act(
                instance, do, lambda: link.call(do, {}, timeout=limit, id=instance)
            )


def _seat(one: BackendFacts) -> UnitStatus:
    """While its backend's worker is away for a moment, a seat is as it was."""
    if one.link is None and one.outage.down:
        return UnitStatus(UnitState.ACTIVATING, run=one.run, since=one.unit.since)
    return UnitStatus(UnitState.ACTIVE, run=one.run, since=one.attached_at)
