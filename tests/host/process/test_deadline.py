"""A moment by which something must have happened: exact when it passes, cheap when it moves."""

import asyncio

from agent.host.process.deadline import Deadline


class Watched:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.passed: asyncio.Future[float] = self.loop.create_future()
        self.until = 0.0
        self.asked = 0
        self.deadline = Deadline(self._pass, self._renewed)

    def _pass(self, _late: float) -> None:
        self.passed.set_result(self.loop.time())

    def _renewed(self) -> float:
        self.asked += 1
        return self.until


async def test_a_deadline_passes_when_its_time_is_over_and_not_before() -> None:
    watched = Watched()
    at = watched.loop.time() + 1.3  # over a whole second: the early look comes in between
    watched.deadline.set(1.3)
    async with asyncio.timeout(60):
        assert await watched.passed >= at


async def test_a_renewed_deadline_passes_later() -> None:
    watched = Watched()
    watched.until = watched.loop.time() + 1.2
    watched.deadline.set(0.1)
    async with asyncio.timeout(60):
        assert await watched.passed >= watched.until
    assert watched.asked >= 2


async def test_sooner_is_taken_at_once_and_none_ends_it() -> None:
    watched = Watched()
    begun = watched.loop.time()
    watched.deadline.set(600)
    watched.deadline.set(0.05)
    async with asyncio.timeout(60):
        assert await watched.passed < begun + 50
    watched.passed = watched.loop.create_future()
    watched.deadline.set(0.05)
    watched.deadline.set(None)
    later: asyncio.Future[None] = watched.loop.create_future()
    watched.loop.call_later(0.2, later.set_result, None)
    await later
    assert not watched.passed.done()
