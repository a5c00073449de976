"""When passes happen, and that one instance never disturbs another."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from agent.clock import boot_now
from agent.config.config import Config
from agent.core.health import HealthPolicy
from agent.core.model import InstanceId
from agent.supervise import passes
from agent.supervise.facts import Settings
from agent.supervise.passes import Loop, Wakes

A, B = InstanceId("a"), InstanceId("b")
SOON = Settings(Config(health=HealthPolicy(interval=0.05)))
"""A pass that failed is tried again at once."""


@asynccontextmanager
async def running(
    run_pass: Callable[[InstanceId], Awaitable[float | None]], facts: Any = None, **places: int
) -> AsyncIterator[tuple[Wakes, Loop]]:
    wakes = Wakes()
    loop = Loop(wakes, run_pass, SOON, facts or {}, **places)
    task = asyncio.create_task(loop.run())
    try:
        yield wakes, loop
    finally:
        loop.stop()
        await asyncio.wait_for(task, 30)


async def test_a_wake_means_one_pass(eventually):
    seen: Counter[str] = Counter()

    async def run_pass(id: InstanceId) -> None:
        seen[id] += 1

    async with running(run_pass) as (wakes, loop):
        wakes.wake(A)
        wakes.wake(A)
        wakes.wake(B)
        await eventually(lambda: loop.passes, 2)
    assert seen == {A: 1, B: 1}


async def test_a_wake_during_a_pass_means_one_more_pass_after_it(eventually):
    under_way = asyncio.Event()
    go_on = asyncio.Event()
    at_once = 0

    async def run_pass(id: InstanceId) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1, "two passes of one instance at the same time"
        under_way.set()
        await go_on.wait()
        at_once -= 1

    async with running(run_pass) as (wakes, loop):
        wakes.wake(A)
        await under_way.wait()
        wakes.wake(A)
        wakes.wake(A)
        go_on.set()
        await eventually(lambda: loop.passes, 2)


async def test_a_pass_that_fails_is_tried_again_and_the_others_go_on(eventually, caplog):
    seen: Counter[str] = Counter()

    async def run_pass(id: InstanceId) -> None:
        seen[id] += 1
        if id == A and seen[A] < 3:
            raise RuntimeError("a bug")

    async with running(run_pass) as (wakes, _):
        wakes.wake(A)
        wakes.wake(B)
        await eventually(lambda: seen[A], 3)
        assert caplog.text.count("a pass for a failed; the next one tries again") == 2
        assert seen[B] == 1


async def test_f52_after_a_sleep_of_the_machine_what_was_due_meanwhile_passes_at_once(
    eventually, monkeypatch
):
    """The boot clock counts while the machine sleeps; the loop's own timers do not."""
    gettime, slept = time.clock_gettime, 0.0
    monkeypatch.setattr(passes, "TURN", passes.TURN / 20)

    async def run_pass(id: InstanceId) -> float:
        return boot_now() + 3600.0

    async with running(run_pass) as (wakes, loop):
        wakes.wake(A)
        await eventually(lambda: loop.passes, 1)
        slept = 4 * 3600.0
        monkeypatch.setattr(time, "clock_gettime", lambda clock: gettime(clock) + slept)
        await eventually(lambda: loop.passes, 2)


async def test_a_slow_lane_fills_its_own_places_only(eventually):
    """Forty sessions whose server hangs, and one that has nothing to do with it."""
    hang = asyncio.Event()
    begun: Counter[str] = Counter()

    async def run_pass(id: InstanceId) -> None:
        begun["slow" if id.startswith("slow") else id] += 1
        if id.startswith("slow"):
            await hang.wait()

    slow = SimpleNamespace(instance=SimpleNamespace(backend="evo"))
    facts = {InstanceId(f"slow{number}"): slow for number in range(40)}
    async with running(run_pass, facts, parallel=2, lane_parallel=4) as (wakes, loop):
        for id in (*facts, A):
            wakes.wake(id)
        await eventually(lambda: begun[A], 1)
        assert begun["slow"] == 4
        assert loop.blocked(boot_now()) == 0.0, "a slow server is no reason to restart the agent"
        wakes.wake(B)
        await eventually(lambda: begun[B], 1)
        hang.set()
        await eventually(lambda: begun["slow"], 40)
