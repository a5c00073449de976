"""Machines of a fleet in virtual time over a store in memory, and the oracle of their logins.

A Host stands for a machine: its disk, its boot clock, its workers with their fence, and an agent
whose keeper is the real one.
"""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agent.fleet import records
from agent.fleet.etcd import Pair, Put
from agent.fleet.keeper import BootClock, Keeper
from agent.fleet.records import Fleet, Keys, Machine, Session, decoded, encoded, named
from tests.clocks import stopped
from tests.fleet.memory import Line, Memory
from tests.world.virtual import Loop, virtual_time

FLEET = Fleet()
TTL = FLEET.ttl
KERNEL = 2.0
"""Seconds past the lease after which the kernel has killed a worker at the latest."""


@dataclass
class Logins:
    """Oracle: at no time do two machines hold one session's connection."""

    holders: dict[str, set["Host"]] = field(default_factory=dict)
    count: int = 0
    wrong: list[str] = field(default_factory=list)

    def connect(self, id: str, host: "Host") -> None:
        self.count += 1
        if others := self.holders.setdefault(id, set()) - {host}:
            self.wrong.append(f"{now():.1f}: {id} on {host.name}, and still on {len(others)} more")
        self.holders[id].add(host)

    def disconnect(self, id: str, host: "Host") -> None:
        self.holders[id].discard(host)


def now() -> float:
    return asyncio.get_running_loop().time()


class Clock(BootClock):
    """`rate`: seconds of it for one second of the world."""

    def __init__(self, rate: float, since: float, thawed: asyncio.Event) -> None:
        self.rate, self.since, self.thawed = rate, since, thawed

    def now(self) -> float:
        return self.since + now() * self.rate

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.rate)
        await self.thawed.wait()

    async def wait(self, woken: asyncio.Event, seconds: float) -> None:
        await super().wait(woken, seconds / self.rate)
        await self.thawed.wait()


class Host:
    """In place of Joined. Workers of it share one lease, and each ends by its fence."""

    fenced, fleet = True, FLEET
    change: Callable[..., Any] = staticmethod(lambda same, _: same)

    def __init__(self, world: "World", name: str, disk: Path, boot: str) -> None:
        self.world, self.name, self.folder, self.boot = world, name, disk, boot
        self.thawed = asyncio.Event()
        self.thawed.set()
        rate = 1 + world.draw.uniform(-0.02, 0.02)
        self.clock = Clock(rate, world.draw.random() * 9e3, self.thawed)
        self.line: Any = Line(world.memory, world.draw, self.thawed, change=self.change)
        self.workers, self.ending = dict[str, int](), set[str]()
        self.files = dict[str, int]()
        """Epoch of each session whose files this disk has."""
        self.until = 0.0
        self._fence: asyncio.TimerHandle | None = None
        self.keeper: Keeper | None = None
        self._agent: asyncio.Task[None] | None = None

    def start_agent(self) -> None:
        assert self._agent is None
        self.keys, draw = self.world.keys, random.Random(self.world.draw.random())
        how = {"fleet": self.fleet, "runner": self, "boot_and_folder": self.boot, "draw": draw}
        self.keeper = Keeper(self.line, **how)
        self._agent = asyncio.create_task(self.keeper.run())
        self.tasks = [self._agent]

    async def kill_agent(self) -> None:
        """Workers go on to the end of their lease."""
        if self._agent is not None:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            if not self._agent.cancelled():
                self._agent.result()
            self._agent = self.keeper = None

    async def kill(self) -> None:
        """The machine is off. The next boot has another id."""
        await self.kill_agent()
        self.thawed.set()
        self.line.cut = False
        for id in {*self.workers, *self.ending}:
            self._gone(id)
        self.boot += "+"

    async def stop(self) -> None:
        """In order, as a machine that is shut down."""
        keeper = self.keeper
        await self.kill_agent()
        await self.end_all()
        await keeper.release()
        self.boot += "+"

    async def move(self, id: str, target: str) -> None:
        """As a task of the agent."""
        with suppress(Exception):
            work = self.keeper.hand_over(id, target, partial(self.clock.sleep, 0))
            self.tasks.append(asyncio.create_task(work))
            await self.tasks[-1]

    # Questions of the keeper to its host

    def describe(self) -> Machine:
        return Machine(address="127.0.0.1:9", capacity=1000, engines=("baileys",))

    def running(self) -> Collection[str]:
        return self.workers.keys()

    def extend(self, until: float) -> None:
        self.until = until
        if self._fence is not None:
            self._fence.cancel()
        if self.fenced:
            left = (until - self.clock.now()) / self.clock.rate
            self._fence = asyncio.get_running_loop().call_later(left, self._at_fence)

    def start(self, owned: Mapping[str, Session]) -> None:
        if self.clock.now() >= self.until:
            return
        for id, record in owned.items():
            if id not in self.workers and id not in self.ending and record.wanted == "running":
                self.workers[id] = self.files[id] = record.epoch
                self.world.logins.connect(id, self)

    async def end(self, ids: Collection[str]) -> None:
        self._ends([id for id in ids if id in self.workers], self.world.draw.uniform(0.1, 1.0))
        while not self.ending.isdisjoint(ids):
            await self.clock.sleep(0.1)

    async def end_all(self) -> None:
        await self.end([*self.workers, *self.ending])

    async def distrust(self) -> None:
        self.files = {id: epoch - 1 for id, epoch in self.files.items()}

    def copied(self) -> Collection[str]:
        return self.world.sessions()

    def held(self) -> Mapping[str, records.Held]:
        return {id: (epoch, int(id in self.workers), 0) for id, epoch in self.files.items()}

    def _at_fence(self) -> None:
        self._ends(list(self.workers), self.world.draw.uniform(0, KERNEL) / self.clock.rate)

    def _ends(self, ids: Collection[str], within: float) -> None:
        """Whatever becomes of the agent meanwhile."""
        for id in ids:
            del self.workers[id]
            self.ending.add(id)
            asyncio.get_running_loop().call_later(within, self._gone, id)

    def _gone(self, id: str) -> None:
        self.workers.pop(id, None)
        self.ending.discard(id)
        self.world.logins.disconnect(id, self)


class World:
    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw = root, random.Random(seed)
        self.memory, self.keys, self.logins = Memory(), Keys("f"), Logins()
        self.memory.written = self._check
        self.hosts, self.twins = dict[str, Host](), list[Host]()
        self.copying: asyncio.Task[None] | None = None

    def add(self, name: str) -> Host:
        (disk := self.root / name).mkdir()
        self.hosts[name] = host = Host(self, name, disk, f"boot of {name}")
        host.start_agent()
        return host

    def write(self, id: str, record: Session) -> None:
        self.memory.commit([], [Put(self.keys.session(id), encoded(record))], [])

    async def begin(self, names: str, sessions: int, copies: int = 2) -> None:
        """Machines of these names, with sessions in turn."""
        for name in names:
            self.add(name)
        for n in range(sessions):
            others = [names[(n + at) % len(names)] for at in range(len(names))]
            record = Session(others[0], 1, engine="baileys", copies=(*others[1 : 1 + copies],))
            self.write(f"s{n}", record)
        self.copying = asyncio.create_task(self._copy(copies))
        await self.all_up(within=TTL)

    def twin(self, name: str, *, reboots: bool) -> Host:
        """A clone of the machine's disk, which runs beside it."""
        disk = Path(tempfile.mkdtemp(dir=self.root))
        with suppress(FileNotFoundError):
            shutil.copy(self.root / name / "agent.json", disk)
        twin = Host(self, name, disk, self.hosts[name].boot + "~" * reboots)
        twin.files.update(self.hosts[name].files)
        twin.start_agent()
        self.twins.append(twin)
        return twin

    def sessions(self) -> dict[str, Session]:
        start, every = self.keys.sessions, self.memory.pairs.values()
        found = (it for it in every if it.key.startswith(start))
        return {named(it.key): decoded(it.value, Session) for it in found}

    def machine(self, name: str) -> Machine | None:
        pair = self.memory.pairs.get(self.keys.machine(name))
        return decoded(pair.value, Machine) if pair else None

    def down(self) -> list[str]:
        lives = (id for id, it in self.sessions().items() if not it.deleted)
        return [id for id in lives if not self.logins.holders.get(id)]

    async def all_up(self, within: float) -> float:
        """Seconds until each session is connected somewhere."""
        return await self.until(lambda: not self.down(), within)

    async def until(self, holds: Callable[[], object], within: float) -> float:
        begun = now()
        while not holds():
            assert now() < begun + within, f"down after {within} s: {self.down()[:5]}"
            await asyncio.sleep(0.02)
        return now() - begun

    async def end(self) -> None:
        if self.copying is not None:
            self.copying.cancel()
        for host in (*self.hosts.values(), *self.twins):
            await host.kill()

    async def _copy(self, copies: int) -> None:
        """Owners find machines for copies that are in sync again."""
        while True:
            await asyncio.sleep(2)
            living = [name for name in self.hosts if (it := self.machine(name)) and not it.lost]
            for id, record in self.sessions().items():
                lacks = len(record.copies) < min(copies, len(living) - 1)
                if lacks and record.machine in living and self.logins.holders.get(id):
                    others = tuple(it for it in living if it != record.machine)[:copies]
                    self.write(id, replace(record, copies=others))

    def _check(self, pair: Pair) -> None:
        """Oracle: an epoch never falls, and a machine that is lost takes nothing over."""
        old = self.memory.pairs.get(pair.key)
        if old is None or not pair.key.startswith(self.keys.sessions):
            return
        before, after = decoded(old.value, Session), decoded(pair.value, Session)
        owner, heir = self.machine(before.machine), self.machine(after.machine)
        if after.epoch < before.epoch:
            self.logins.wrong.append(f"{now():.1f}: the epoch of {pair.key} falls")
        taken = before.machine != after.machine and owner is not None and owner.lost
        if taken and (heir is None or heir.lost or before.failover != "newest"):
            self.logins.wrong.append(f"{now():.1f}: {after.machine}, lost itself, took {pair.key}")


def play(story: Callable[[Any], Coroutine[Any, Any, Any]], seed: int = 0, kind: Any = World) -> Any:
    """The world after the story, which is the same for each seed."""

    async def whole(root: Path) -> Any:
        world = kind(root, seed)
        try:
            await story(world)
        finally:
            await world.end()
        return world

    with tempfile.TemporaryDirectory() as root, virtual_time(seed):
        stopped().most = 4 * 3600.0
        with asyncio.Runner(loop_factory=getattr(kind, "loop", Loop)) as runner:
            return runner.run(whole(Path(root)))


def well(world: Any) -> None:
    assert not world.logins.wrong, world.logins.wrong


def played(story: Callable[[Any], Coroutine[Any, Any, Any]], kind: Any = World) -> Any:
    """A test, from its story, at the end of which all was well."""
    return lambda: well(play(story, kind=kind))
