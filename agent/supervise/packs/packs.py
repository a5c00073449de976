"""Packs: sessions that share one worker, where `[worker] pack` is more than 1.

A pack's worker says which sessions it holds, so that the next agent moves none. A change of the
setting moves a session at its next start.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.core.packs import choose_pack
from agent.engines.catalog import entry_of
from agent.errors import HostError, WaError
from agent.host.base import Host
from agent.host.exit_words import words
from agent.host.units import PACKS
from agent.link.client import LinkStats
from agent.log import about
from agent.supervise.facts import Facts
from agent.supervise.packs.pack import HOLD_WITHIN, RELEASE_WITHIN, Pack

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
UNUSED = 10.0
"""Seconds after which a pack that holds no session is stopped."""
ATTACHED_WITHIN, ATTACH_AGAIN = 20.0, 0.05
"""Seconds until a pack that began must answer."""
TAKE_OVER = 5.0
"""Seconds that a start of the agent waits for packs that run already."""


class Packs:
    """Which sessions are in which pack; keeps the worker of each pack as long as it is used."""

    def __init__(
        self,
        *,
        open_host: Callable[[], Awaitable[Host]],
        size: Callable[[], int],
        facts: Mapping[InstanceId, Facts],
        wake: Callable[[InstanceId], None],
        link_stats: LinkStats,
    ) -> None:
        """`open_host` is called when the first pack is needed."""
        self.all: dict[InstanceId, Pack] = {}
        self._open_host = open_host
        self._size = size
        self._facts = facts
        self._wake_session = wake
        self._link_stats = link_stats
        self._host: Host | None = None
        self._opening = asyncio.Lock()
        self._acting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stirred = asyncio.Event()

    async def take_over(self, run_folder: Path) -> None:
        """Find the packs that run already, and the sessions in them. `run_folder`: of packs where
        there is no systemd."""
        if not await asyncio.to_thread(_may_run, PACKS.runtime, run_folder):
            return
        host = await self._opened()
        names = [name for name, unit in (await host.list()).items() if unit.runs]
        self.all = {name: Pack(name) for name in names}
        found = self.all.values()
        await asyncio.gather(*(self._until_attached(pack, TAKE_OVER) for pack in found))
        for pack in found:
            for id, status in pack.members.items():
                if (facts := self._facts.get(id)) is not None and status.runs:
                    facts.pack = pack.name

    def holds(self, id: InstanceId) -> bool:
        """Whether its pack answers for it: it was started there, and no worker of its own since."""
        facts = self._facts.get(id)
        return facts is not None and bool(facts.pack)

    def list(self) -> Mapping[InstanceId, UnitStatus]:
        return {
            id: unit
            for pack in self.all.values()
            for id, unit in pack.members.items()
            if self._pack_of(id) is pack
        }

    async def status(self, id: InstanceId) -> UnitStatus:
        pack = self._pack_of(id)
        if pack is None:
            return UNIT_ABSENT
        if pack.stale or pack.link is None:
            async with self._acting[pack.name]:
                if pack.stale or pack.link is None:
                    await pack.look(await self._opened(), self._link_stats, self._wake)
        return pack.members.get(id, UNIT_ABSENT)

    def takes(self, facts: Facts) -> bool:
        """Whether a start of this session is a start in a pack."""
        return self._size() > 1 and entry_of(facts.instance.engine).packable

    async def place(self, facts: Facts) -> None:
        """Choose the pack of a session that starts; "" = a worker of its own."""
        engine = facts.instance.engine
        if not entry_of(engine).packable:
            return
        places = {each.id: each.pack for each in self._facts.values() if each.pack}
        name = choose_pack(places, facts.id, engine, self._size())
        if name != facts.pack:
            what = f"pack {name}" if name else "its own"
            log.info("its worker is %s", what, extra=about(facts.id))
            if facts.pack:
                await self.stop(facts.id, forget=True)
        facts.pack = name

    async def start(self, facts: Facts) -> None:
        """HostError where it does not come up."""
        pack = await self._running(InstanceId(facts.pack))
        pack.needed_at = boot_now()
        status = await pack.call("hold", facts.id, HOLD_WITHIN)
        if status.state is not UnitState.ACTIVE:
            cause = words(status.result, status.exit_status)
            raise HostError(f"cannot start {facts.id}: its worker ended ({cause})")

    async def stop(self, id: InstanceId, *, forget: bool = False) -> None:
        pack = self._pack_of(id)
        if pack is None:
            return
        await self.status(id)
        if not pack.unit.runs:
            pack.members[id] = UNIT_ABSENT
        elif id in pack.members:
            await pack.call("release", id, RELEASE_WITHIN, forget=forget)

    async def reset_failed(self, id: InstanceId) -> None:
        pack = self._pack_of(id)
        if pack is None:
            return
        if pack.link is not None:
            status = pack.members.get(id, UNIT_ABSENT)
            await pack.call("reset_failed", id, 10.0)
            pack.members[id] = status
            pack.stale = True
        elif not pack.members.get(id, UNIT_ABSENT).runs:
            pack.members[id] = UNIT_ABSENT

    def link_path(self, id: InstanceId) -> Path:
        pack, host = self._pack_of(id), self._host
        if pack is None or host is None:
            raise HostError(f"cannot reach {id}: it is in no pack")
        return host.link_path(pack.name).with_name("members") / id / "link.sock"

    def log_path(self, id: InstanceId) -> Path | None:
        """Of its pack: each line names its session."""
        pack, host = self._pack_of(id), self._host
        return None if pack is None or host is None else host.log_path(pack.name)

    async def run(self) -> None:
        """Look after the packs until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stirred.wait()
            except TimeoutError:
                pass
            self._stirred.clear()
            try:
                await self._look()
            except WaError as error:
                log.warning("cannot look after the packs: %s", error)

    async def close(self, *, leave_workers: bool) -> None:
        """After the sessions."""
        for pack in self.all.values():
            await pack.close()
        if self._host is None:
            return
        if not leave_workers:
            for name in await self._host.list():
                try:
                    await self._host.stop(name)
                except WaError as error:
                    log.error("cannot stop pack %s in order: %s", name, error)
        await self._host.close(leave_workers=leave_workers)

    async def _look(self) -> None:
        for pack in list(self.all.values()):
            async with self._acting[pack.name]:
                await pack.look(await self._opened(), self._link_stats, self._wake)
                if pack.used or any(self._starts(facts, pack) for facts in self._facts.values()):
                    pack.needed_at = boot_now()
                elif boot_now() - pack.needed_at > UNUSED and pack.unit.runs:
                    await pack.close()
                    await (await self._opened()).stop(pack.name)
                    del self.all[pack.name]
                    log.info("pack %s is stopped: it holds no session", pack.name)
                    continue
            await self._drop_strangers(pack)

    def _starts(self, facts: Facts, pack: Pack) -> bool:
        return facts.pack == pack.name and facts.action.is_start

    async def _drop_strangers(self, pack: Pack) -> None:
        """Sessions that were deleted, or begin elsewhere, while no agent was attached."""
        for id, status in list(pack.members.items()):
            if self._pack_of(id) is not pack and pack.link is not None:
                if status.runs:
                    words = "pack %s holds %s, which is not in it: it lets go"
                    log.warning(words, pack.name, id, extra=about(id))
                await pack.call("release", id, RELEASE_WITHIN, forget=True)
                pack.members.pop(id, None)

    async def _running(self, name: InstanceId) -> Pack:
        """Its worker runs and is attached."""
        pack = self.all.setdefault(name, Pack(name))
        async with self._acting[name]:
            host = await self._opened()
            await pack.look(host, self._link_stats, self._wake)
            if pack.link is not None:
                return pack
            if pack.unit.state is UnitState.FAILED:
                await host.reset_failed(name)
            if not pack.unit.runs:
                await host.start(name)
            await self._until_attached(pack, ATTACHED_WITHIN)
            if pack.link is None:
                # Of a release before this one: it has no such link.
                await host.restart(name)
                await self._until_attached(pack, ATTACHED_WITHIN)
            if pack.link is None:
                raise HostError(f"cannot start pack {name}: its worker does not answer")
            return pack

    async def _until_attached(self, pack: Pack, within: float) -> None:
        host, deadline = await self._opened(), boot_now() + within
        while boot_now() < deadline:
            await pack.look(host, self._link_stats, self._wake)
            if (pack.link is not None and not pack.stale) or not pack.unit.runs:
                return
            await asyncio.sleep(ATTACH_AGAIN)

    def _pack_of(self, id: InstanceId) -> Pack | None:
        facts = self._facts.get(id)
        return self.all.get(InstanceId(facts.pack)) if facts is not None and facts.pack else None

    def _wake(self, id: InstanceId) -> None:
        if id in self._facts:
            self._wake_session(id)
        if id in self.all:
            self._stirred.set()

    async def _opened(self) -> Host:
        async with self._opening:
            if self._host is None:
                self._host = await self._open_host()
        return self._host


def _may_run(*run_folders: Path) -> bool:
    """Whether packs of an earlier agent may run: each has a folder in one of these."""
    there = [place for place in run_folders if place.is_dir()]
    return any(entry.is_dir() for place in there for entry in place.iterdir())
