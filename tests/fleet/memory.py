"""A store in memory with the four calls of etcd, and one machine's line to it, which has faults."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from agent.fleet.etcd import Answer, Delete, Get, MayHaveHappened, Pair, Put, Same, Step, StoreAway


@dataclass
class Memory:
    """Each transaction is atomic and has a revision of its own if it writes."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    revision: int = 1
    cluster: str = "1"
    compacted: int = 0
    off: bool = False
    commits: list[list[Put]] = field(default_factory=list)
    written: Callable[[Pair], None] = lambda _: None
    """Called with each pair before it replaces another one."""
    watches: list[tuple[str, asyncio.Queue[Pair]]] = field(default_factory=list)

    def commit(self, same: list[Same], then: list[Step], otherwise: list[Get]) -> Answer:
        assert max(len(same), len(then), len(otherwise)) <= 128, "as in etcd"
        holds = all(self.holds(it) for it in same)
        chosen = then if holds else otherwise
        gone = [it for it in chosen if isinstance(it, Delete)]
        if (puts := [it for it in chosen if isinstance(it, Put)]) or gone:
            assert len({it.key for it in puts}) == len(puts), "etcd refuses a key twice"
            self.revision += 1
            for key in [key for key in self.pairs for it in gone if _holds(it.key, key)]:
                del self.pairs[key]
            self.commits.append(puts)
            for put in puts:
                self.put(Pair(put.key, put.value, self.revision))
        found = [self.get(it) for it in chosen if isinstance(it, Get)]
        return Answer(holds, self.revision, self.cluster, found)

    def put(self, pair: Pair) -> None:
        self.written(pair)
        self.pairs[pair.key] = pair
        for key, queue in self.watches:
            if _holds(key, pair.key):
                queue.put_nowait(pair)

    def get(self, get: Get) -> list[Pair]:
        found = (it for it in self.pairs.values() if _holds(get.key, it.key))
        return sorted((it for it in found if it.revision >= get.since), key=lambda it: it.key)

    def holds(self, it: Same) -> bool:
        pair = self.pairs.get(it.key, Pair(it.key, b"", 0))
        return pair.value == it.value if it.value else pair.revision == it.revision

    def snapshot(self) -> tuple[dict[str, Pair], int]:
        return dict(self.pairs), self.revision

    def restore(self, snapshot: tuple[dict[str, Pair], int]) -> None:
        self.pairs, self.revision = dict(snapshot[0]), snapshot[1]


def _holds(key: str, one: str) -> bool:
    return one.startswith(key) if key.endswith("/") else one == key


@dataclass
class Line:
    """In place of Etcd. Requests reach the memory at once, after the caller gave up, or never."""

    memory: Memory
    draw: random.Random
    thawed: asyncio.Event
    """Set while the asking process is not frozen: a frozen one hears an answer when it goes on."""
    cut: bool = False
    bad: float = 0.0
    """Share of writes whose answer is lost, half of them delivered late."""
    late: float = 16.0
    """Seconds that a request is held at most."""
    faults: dict[int, float] = field(default_factory=dict)
    """By the number of a write: seconds that it is held; 0: only its answer is lost."""
    change: Callable[[Sequence[Same], Sequence[Step]], Sequence[Same]] = lambda same, _: same
    """A mutant's."""
    writes: int = 0

    async def commit(self, same: list[Same], then: list[Step], otherwise: Sequence = ()) -> Answer:
        self.writes += 1
        await self._travel()
        same = self.change(same, then)
        if (held := self.faults.get(self.writes)) is None and self.draw.random() < self.bad:
            held = max(0.0, self.draw.uniform(-self.late, self.late))
        if held is None:
            answer = self.memory.commit(same, then, otherwise)
            await self._travel(MayHaveHappened)
            return answer
        asyncio.get_running_loop().call_later(held, self.memory.commit, same, then, otherwise)
        await self._gone(MayHaveHappened("no answer"))
        raise AssertionError

    async def read(self, get: Get) -> Answer:
        await self._travel()
        answer = Answer(True, self.memory.revision, self.memory.cluster, [self.memory.get(get)])
        await self._travel()
        return answer

    async def watch(self, key: str) -> AsyncIterator[Pair]:
        await self._travel()
        mine = key, asyncio.Queue[Pair]()
        self.memory.watches.append(mine)
        try:
            while True:
                yield await mine[1].get()
                await self._travel()
        finally:
            self.memory.watches.remove(mine)

    async def compact(self, revision: int) -> None:
        await self._travel()
        self.memory.compacted = revision

    async def _travel(self, error: type[StoreAway] = StoreAway) -> None:
        if self.cut or self.memory.off:
            await self._gone(error("cut off"))
        await asyncio.sleep(self.draw.uniform(0.001, 0.05))
        await self.thawed.wait()

    async def _gone(self, error: StoreAway) -> None:
        await asyncio.sleep(1.0)
        await self.thawed.wait()
        raise error
