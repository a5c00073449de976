"""Drawn faults over machines of a fleet: kills, freezes, cuts, late requests, twins, moves."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from tests.fleet.world import TTL, Host, World

NAMES = "abcd"
BACK_WITHIN = 3 * TTL
"""After all faults ended: a machine that waits for a ttl, a takeover by the second machine with a
copy, and a start."""


class Nemesis:
    def __init__(self, world: World, sessions: int = 24) -> None:
        self.world, self.draw, self.sessions = world, world.draw, sessions

    async def story(self, seconds: float) -> None:
        """Faults for so long, each machine's own at one time; then all must be well."""
        await self.world.begin(NAMES, self.sessions)
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._haunt(name, end) for name in NAMES))
        await self.world.all_up(BACK_WITHIN)
        await asyncio.sleep(TTL)
        assert not self.world.down()

    async def _haunt(self, name: str, end: float) -> None:
        ends = (Host.kill_agent, 45), (Host.kill_agent, 45), (Host.kill, 90), (Host.stop, 90)
        kinds = [*(partial(self._ends, *it) for it in ends), self.frozen, self.cut]
        kinds += [self.late, self.late, self.moves, self.moves, self.twin]
        while True:
            await asyncio.sleep(self.draw.expovariate(1 / 12))
            if asyncio.get_running_loop().time() > end:
                return
            await self.draw.choice(kinds)(self.world.hosts[name])

    def _some_time(self, most: float = 45.0) -> Awaitable[None]:
        return asyncio.sleep(self.draw.uniform(0, most) * self.draw.random())

    async def _ends(self, how: Callable[[Host], Awaitable[None]], most: float, host: Host) -> None:
        await how(host)
        await self._some_time(most)
        host.start_agent()

    async def frozen(self, host: Host) -> None:
        host.thawed.clear()
        await self._some_time(60)
        host.thawed.set()

    async def cut(self, host: Host) -> None:
        host.line.cut = True
        await self._some_time()
        host.line.cut = False

    async def late(self, host: Host) -> None:
        host.line.bad = self.draw.choice((0.3, 0.7, 1.0))
        host.line.late = self.draw.choice((3.0, 16.0, 90.0))
        await self._some_time(60)
        host.line.bad = 0.0

    async def moves(self, host: Host) -> None:
        if self.draw.random() < 0.5:
            host.line.bad = self.draw.random()
        for id in sorted(host.workers)[:3]:
            other = self.draw.choice(NAMES.replace(host.name, ""))
            moving = asyncio.create_task(host.move(id, other))
            await self._some_time(6)
            if self.draw.random() < 0.2:
                await host.kill_agent()
                await self._some_time(6)
                host.start_agent()
            await asyncio.wait([moving], timeout=15)
        host.line.bad = 0.0

    async def twin(self, host: Host) -> None:
        twin = self.world.twin(host.name, reboots=self.draw.random() < 0.5)
        await self._some_time(20)
        for id in sorted(host.workers)[:1]:
            others = [it for it in NAMES if it != host.name]
            self.moving = asyncio.create_task(twin.move(id, self.draw.choice(others)))
        await self._some_time(100)
        await twin.kill()
        self.world.twins.remove(twin)
