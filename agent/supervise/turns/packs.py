"""Packs: sessions that share one Node process, where `[worker] pack` is more than 1.

Each session's folder names its pack, so that its worker finds it without the agent, and the next
agent moves none. A change of the setting moves a session at its next start.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitState
from agent.core.packs import choose_pack
from agent.engines.baileys.pack_client import FILE, PackPlace, read_place
from agent.engines.catalog import entry_of
from agent.errors import HostError, WaError
from agent.files import write_whole
from agent.host.base import Host
from agent.log import about
from agent.supervise.facts import Facts

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
UNUSED = 10.0
"""Seconds after which a pack that no session uses is stopped."""
FIRST_DELAY, LONGEST_DELAY = 2.0, 60.0


class Packs:
    """Keeps the process of each pack running while one of its sessions runs."""

    def __init__(
        self,
        *,
        open_host: Callable[[], Awaitable[Host]],
        size: Callable[[], int],
        session_root: Path,
        facts: Mapping[InstanceId, Facts],
    ) -> None:
        """`open_host` is called when the first pack is needed."""
        self._open_host = open_host
        self._size = size
        self._root = session_root
        self._facts = facts
        self._host: Host | None = None
        self._opening = asyncio.Lock()
        self._acting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._needed_at: dict[str, float] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        """Failed starts of a pack in a row, and when the next may be tried."""

    def take_over(self) -> None:
        """Read the pack of each session."""
        for facts in self._facts.values():
            if entry_of(facts.instance.engine).packable:
                place = read_place(self._root / facts.id)
                facts.pack = place.name if place is not None else ""
                if facts.pack:  # its process may run without a session that runs
                    self._needed_at[facts.pack] = boot_now()

    async def place(self, facts: Facts) -> None:
        """Before a session's worker starts: choose its pack and start that pack's process."""
        engine = facts.instance.engine
        if not entry_of(engine).packable:
            return
        places = {facts.id: facts.pack for facts in self._facts.values() if facts.pack}
        name = choose_pack(places, facts.id, engine, self._size())
        if name != facts.pack:
            words = f"that of pack {name}" if name else "its own"
            log.info("its Node is %s", words, extra=about(facts.id))
        facts.pack = name
        if name:
            self._needed_at[name] = boot_now()
            # Not raised: the session's own engine says best what is missing.
            await self._ensure(name)
        try:
            await self._note(facts)
        except OSError as error:
            raise HostError(f"cannot note the pack of {facts.id}: {error}") from error

    async def run(self) -> None:
        """Start and stop packs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self._look()
            except WaError as error:
                log.warning("cannot look after the packs: %s", error)

    async def close(self, *, leave_workers: bool) -> None:
        """After the sessions: a pack has nothing left to save."""
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
        now = boot_now()
        for facts in self._facts.values():
            if facts.pack and (facts.unit.runs or facts.action.is_start):
                self._needed_at[facts.pack] = now
        if not self._needed_at:
            return
        host = await self._opened()
        for name, at in list(self._needed_at.items()):
            if at == now:
                await self._ensure(name)
            elif now - at > UNUSED:
                await host.stop(InstanceId(name))
                del self._needed_at[name]
                log.info("pack %s is stopped: no session uses it", name)

    async def _ensure(self, name: str) -> None:
        """Start its process; a failure is logged, and tried again later."""
        id = InstanceId(name)
        async with self._acting[name]:
            failures, next_at = self._failed.get(name, (0, 0.0))
            try:
                host = await self._opened()
                unit = await host.status(id)
                if unit.runs or unit.job_pending or boot_now() < next_at:
                    return
                if unit.state is UnitState.FAILED:
                    await host.reset_failed(id)
                await host.start(id)
                self._failed.pop(name, None)
            except WaError as error:
                wait = min(FIRST_DELAY * 2.0 ** min(failures, 16), LONGEST_DELAY)
                self._failed[name] = failures + 1, boot_now() + wait
                log.error("cannot start pack %s: %s", name, error)

    async def _opened(self) -> Host:
        async with self._opening:
            if self._host is None:
                self._host = await self._open_host()
        return self._host

    async def _note(self, facts: Facts) -> None:
        path = self._root / facts.id / FILE
        if not facts.pack:
            path.unlink(missing_ok=True)
            return
        host = await self._opened()
        sock = host.link_path(InstanceId(facts.pack)).with_name("pack.sock").absolute()
        if read_place(path.parent) != PackPlace(facts.pack, sock):
            content = json.dumps({"pack": facts.pack, "socket": str(sock)}).encode()
            await asyncio.to_thread(write_whole, path, content, mode=0o640)
