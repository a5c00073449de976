"""Where sessions run: in workers of their own, in packs, in the tasks of their servers.

A session on a backend has no process. Starting it makes its server's task watch it, stopping it
ends that; the session on the server stays as it is.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.engines.catalog import entry_of
from agent.errors import HostError, LinkError, WaError
from agent.host.life import Host
from agent.host.units import PACKS
from agent.link.client import Link, Listener
from agent.log import going_on, log
from agent.supervise.facts import Facts
from agent.supervise.gate import Gate

# Packs: sessions that share one worker, where `[worker] pack` is more than 1. A pack's worker says
# which sessions it holds, so that the next agent moves none.

Statuses = dict[InstanceId, UnitStatus]

LOOK_EVERY = 1.0
ATTACHED_WITHIN, ATTACH_AGAIN = 20.0, 0.05
"""Seconds until a pack that began must answer, and between two tries to attach."""
TAKE_OVER = 5.0
"""Seconds that a start of the agent waits for packs that run already."""
HOLD_WITHIN, RELEASE_WITHIN = 70.0, 90.0
"""Seconds for a pack to hold a member and to release one; the pack breaks one off sooner."""


@dataclass(slots=True, eq=False, repr=False)
class Pack:
    name: InstanceId
    host: Host
    wake: Callable[[InstanceId], None]
    unit: UnitStatus = UNIT_ABSENT
    link: Link | None = None
    members: Statuses = field(default_factory=dict)
    """Members as the pack's worker told them last."""
    stale: bool = True
    """True if a member may have changed: the worker is asked for its members."""
    acting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> None:
        """Read the pack's unit; attach to a worker that runs; read its members."""
        before, self.unit = self.unit, await self.host.status(self.name)
        changed = (before.run, before.state) != (self.unit.run, self.unit.state)
        if self.unit.state is not UnitState.ACTIVE and changed:
            # A member runs no longer than its pack; one whose pack begins again does so, too.
            state = UnitState.ACTIVATING if self.unit.runs else UnitState.FAILED
            how = {"result": self.unit.result, "exit_status": self.unit.exit_status}
            ended: dict[str, Any] = {"state": state, "main_pid": 0, "since": boot_now(), **how}
            members = self.members.items()
            self._take({id: replace(unit, **ended) if unit.runs else unit for id, unit in members})
        with suppress(LinkError, HostError):
            if self.link is None and self.unit.state is UnitState.ACTIVE:
                await self._attach()
            if self.link is not None and self.stale:
                await self.call("members", 10.0)

    async def call(self, do: str, within: float, **args: Any) -> None:
        """Call the pack's worker; each answer names all its members."""
        if self.link is None:
            raise HostError(f"cannot {do}: the worker of pack {self.name} does not answer")
        self.stale = False
        try:
            answer = await self.link.call(do, {**args, "deadline": within}, timeout=within + 5.0)
            told = msgspec.convert(answer.get("members"), Statuses)
        except (WaError, msgspec.ValidationError) as error:
            self.stale = True
            raise HostError(f"cannot {do} in pack {self.name}: {error}") from error
        pid = self.unit.main_pid
        self._take({id: replace(unit, main_pid=unit.main_pid and pid) for id, unit in told.items()})

    async def until_attached(self, within: float) -> None:
        deadline = boot_now() + within
        while boot_now() < deadline:
            await self.look()
            if (self.link is not None and not self.stale) or not self.unit.runs:
                return
            await asyncio.sleep(ATTACH_AGAIN)

    async def close(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            await link.close()

    def _take(self, members: Statuses) -> None:
        before, self.members = self.members, members
        for id in before.keys() | members.keys():
            if before.get(id) != members.get(id):
                self.wake(id)

    async def _attach(self) -> None:
        def told(_run: str, _what: object) -> None:
            self.stale = True

        def lost(_why: str) -> None:
            self.link, self.stale = None, True

        path, listener = self.host.link_path(self.name), Listener(told, told, lost)
        self.link = await Link.open(path, self.name, self.unit.main_pid, listener)
        self.stale = True


def choose_pack(places: Mapping[InstanceId, str], id: InstanceId, engine: str, size: int) -> str:
    """The pack of a session that starts; "" = a process of its own. `places`: the packs of all
    sessions. A session keeps its pack while that is not too full."""
    if size <= 1:
        return ""
    counts = Counter(name for other, name in places.items() if other != id)
    if (own := places.get(id, "")) and counts[own] < size:
        return own
    names = (f"{engine}-{number}" for number in count(1))
    return next(name for name in names if counts[name] < size)


@dataclass(slots=True, eq=False, repr=False)
class Seats:
    """Starts and stops sessions where each has its seat; keeps the worker of each pack as long as
    it is used."""

    _host: Host
    _open_packs: Callable[[], Awaitable[Host]]
    _size: int
    """Sessions of one pack; 1 = none is in a pack."""
    _facts: Mapping[InstanceId, Facts]
    _gate: Gate
    packs: dict[str, Pack] = field(init=False, default_factory=dict)
    _host_of_packs: Host | None = field(init=False, default=None)

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        every = ((pack, *row) for pack in self.packs.values() for row in pack.members.items())
        members = {id: unit for pack, id, unit in every if self._holds(pack, id)}
        return {**await self._host.list(), **members, **self._gate.backends.units()}

    async def status(self, facts: Facts) -> UnitStatus:
        if facts.instance.backend:
            backend = self._gate.backends.of(facts)
            return UNIT_ABSENT if backend is None else backend.unit(facts.id)
        if not facts.pack:
            return await self._host.status(facts.id)
        if (pack := self.packs.get(facts.pack)) is None:
            return UNIT_ABSENT
        if pack.stale or pack.link is None:
            async with pack.acting:
                await pack.look()
        return pack.members.get(facts.id, UNIT_ABSENT)

    async def start(self, facts: Facts) -> None:
        """Start a session; HostError if it does not come up. A running worker stays where it is."""
        if facts.instance.backend:
            if not await self._gate.backends.needed(facts).start(facts.id):
                self._gate.queues.no_login()  # the server had it connected already
            return
        if self._takes(facts) and not (await self.status(facts)).runs:
            places = {each.id: each.pack for each in self._facts.values() if each.pack}
            facts.pack = choose_pack(places, facts.id, facts.instance.engine, self._size)
        if not facts.pack:
            await self._host.start(facts.id)
        else:
            pack = await self._running(InstanceId(facts.pack))
            await pack.call("hold", HOLD_WITHIN, id=facts.id)

    async def stop(self, facts: Facts) -> None:
        if facts.instance.backend:
            if (backend := self._gate.backends.of(facts)) is not None:
                backend.leave(facts.id)
        elif not facts.pack:
            await self._host.stop(facts.id)
        else:
            await self.status(facts)
            if (pack := self.packs.get(facts.pack)) and pack.unit.runs and facts.id in pack.members:
                await pack.call("release", RELEASE_WITHIN, id=facts.id)

    async def restart(self, facts: Facts) -> None:
        if facts.instance.backend:
            await self._gate.backends.needed(facts).restart(facts.id)
        elif facts.pack or self._takes(facts):
            await self.stop(facts)
            await self.start(facts)
        else:
            await self._host.restart(facts.id)

    async def reset_failed(self, facts: Facts) -> None:
        """Forget that a session failed; a pack forgets it when it holds the member again."""
        if (pack := self.packs.get(facts.pack)) is not None:
            if not pack.members.get(facts.id, UNIT_ABSENT).runs:
                pack.members[facts.id] = UNIT_ABSENT
        elif not (facts.instance.backend or facts.pack):
            await self._host.reset_failed(facts.id)

    def limit_memory(self, facts: Facts) -> None:
        """Limit a worker's memory. A pack's member has no limit: the pack ends a Node that uses too
        much."""
        if not (facts.instance.backend or facts.pack):
            self._host.limit_memory(facts.id, self._gate.settings.killed_above(facts))

    def enabled_by_operator(self, facts: Facts) -> bool:
        return not facts.instance.backend and self._host.enabled_by_operator(facts.id)

    def link_path(self, facts: Facts) -> Path:
        if not facts.pack:
            return self._host.link_path(facts.id)
        if (pack := self.packs.get(facts.pack)) is None:
            raise HostError(f"cannot reach {facts.id}: it is in no pack")
        return pack.host.link_path(pack.name).with_name("members") / facts.id / "link.sock"

    def log_path(self, id: InstanceId) -> Path | None:
        """Return the log's path; in a pack's log each line names its session."""
        if (facts := self._facts.get(id)) is None or not facts.pack:
            return self._host.log_path(id)
        pack = self.packs.get(facts.pack)
        return None if pack is None else pack.host.log_path(pack.name)

    # the packs

    async def take_over(self, run_folder: Path) -> None:
        """Find the packs that run already, and the sessions in them; one that is larger than the
        setting ends, and its sessions begin again elsewhere. `run_folder`: of packs where there is
        no systemd. Without a pack no host is opened."""
        # Packs of an earlier agent, each with a folder of its own, may run.
        if self._size == 1 and not [*PACKS.runtime.glob("*/"), *run_folder.glob("*/")]:
            return
        self._host_of_packs = await self._open_packs()
        units = await self._host_of_packs.list()
        found = [self._pack(id) for id, unit in units.items() if unit.runs]
        await asyncio.gather(*(pack.until_attached(TAKE_OVER) for pack in found))
        for pack in found:
            held = [id for id, unit in pack.members.items() if unit.runs and id in self._facts]
            if self._size == 1 or len(held) > self._size:
                await self._end(pack, f"the setting is {self._size}")
            else:
                for id in held:
                    self._facts[id].pack = pack.name

    async def run(self) -> None:
        """Look after the packs until cancelled; return at once where none is wanted."""
        while self._host_of_packs is not None:
            await asyncio.sleep(LOOK_EVERY)
            for pack in list(self.packs.values()):
                with going_on(f"cannot look after pack {pack.name}"):
                    await self._look_after(pack)

    async def close(self, *, leave_workers: bool) -> None:
        """Close the packs, after the sessions."""
        if (host := self._host_of_packs) is None:
            return
        if not leave_workers:
            for name in await host.list():
                await self._end(self._pack(name), "the agent stops")
        for pack in self.packs.values():
            await pack.close()
        await host.close(leave_workers=leave_workers)

    async def _look_after(self, pack: Pack) -> None:
        async with pack.acting:
            await pack.look()
            starts = {it.pack for it in self._facts.values() if it.action.is_start}
            # One that failed has not been seen by its pass yet, or is tried again.
            held = {unit.state for unit in pack.members.values()} - {UnitState.INACTIVE}
            if pack.link is not None and not (pack.stale or held or pack.name in starts):
                await self._end(pack, "it holds no session")
                return
        for id in list(pack.members):
            if pack.link is not None and not self._holds(pack, id):
                await pack.call("release", RELEASE_WITHIN, id=id)

    async def _end(self, pack: Pack, why: str) -> None:
        with going_on(f"cannot stop pack {pack.name} in order"):  # it is looked after again
            await pack.close()
            await pack.host.stop(pack.name)
            del self.packs[pack.name]
            log.info("pack %s is stopped: %s", pack.name, why)

    async def _running(self, name: InstanceId) -> Pack:
        """Return the pack once its worker runs and is attached."""
        pack = self._pack(name)
        async with pack.acting:
            self.packs[name] = pack  # it may have ended while this waited
            await pack.look()
            if pack.link is None:
                if pack.unit.state is UnitState.FAILED:
                    await pack.host.reset_failed(name)
                if not pack.unit.runs:
                    # Members that a pack held before the machine's boot must not begin unasked.
                    members = pack.host.link_path(name).with_name("members")
                    shutil.rmtree(members, ignore_errors=True)
                    await pack.host.start(name)
                await pack.until_attached(ATTACHED_WITHIN)
            if pack.link is None:
                raise HostError(f"cannot start pack {name}: its worker does not answer")
            return pack

    def _takes(self, facts: Facts) -> bool:
        """True if a start of this session is a start in a pack."""
        return self._size > 1 and entry_of(facts.instance.engine).packable

    def _pack(self, name: InstanceId) -> Pack:
        assert self._host_of_packs is not None
        return self.packs.setdefault(name, Pack(name, self._host_of_packs, self._gate.wake))

    def _holds(self, pack: Pack, id: InstanceId) -> bool:
        """True if the pack holds a member; False: it was deleted, or has another seat by now."""
        facts = self._facts.get(id)
        return facts is not None and facts.pack == pack.name
