"""Waiting for systemd's jobs: no end is missed, never many at a time."""

import asyncio
from types import SimpleNamespace

import pytest

from agent.host.systemd import UNKNOWN, WINDOW, Jobs


async def never_asked(path: str) -> bool:
    raise AssertionError(path)


async def begin() -> str:
    return "/job/1"


async def test_an_end_that_comes_before_the_answer_is_looked_at_counts():
    jobs = Jobs(SimpleNamespace(job_exists=never_asked))

    async def ends_at_once() -> str:
        jobs.removed("/job/1", "done")
        return await begin()

    assert await jobs.run(ends_at_once, start=True, timeout=60) == "done"
    assert jobs.pending == 0


async def test_a_caller_that_gives_up_leaves_no_unknown_job_behind(eventually):
    jobs, answered, asked = Jobs(SimpleNamespace(job_exists=never_asked)), asyncio.Event(), []

    async def is_slow() -> str:
        asked.append("start")
        await answered.wait()
        asked.append("queued")
        return await begin()

    run = asyncio.create_task(jobs.run(is_slow, start=True, timeout=60))
    await eventually(lambda: asked, ["start"])
    run.cancel()
    await asyncio.sleep(0)
    assert not run.done(), "systemd will queue it: until then it could not be found"
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert asked == ["start", "queued"]
    assert jobs.pending == 0


async def test_another_jobs_end_is_not_ours(eventually):
    jobs = Jobs(SimpleNamespace(job_exists=never_asked))
    run = asyncio.create_task(jobs.run(begin, start=True, timeout=60))
    await eventually(lambda: jobs.pending, 1)
    jobs.removed("/job/2", "done")
    await asyncio.sleep(0)
    assert not run.done()
    jobs.removed("/job/1", "failed")
    assert await run == "failed"


@pytest.mark.parametrize(("there", "result"), [(True, "done"), (False, UNKNOWN)])
async def test_f21_a_lost_bus_asks_whether_the_job_is_still_there(there, result, eventually):
    asked: list[str] = []

    async def still_exists(path: str) -> bool:
        asked.append(path)
        return there

    jobs = Jobs(SimpleNamespace(job_exists=still_exists))
    run = asyncio.create_task(jobs.run(begin, start=False, timeout=60))
    await eventually(lambda: jobs.pending, 1)
    await asyncio.sleep(0)
    jobs.bus_lost()
    await eventually(lambda: asked, ["/job/1"])
    jobs.removed("/job/1", "done")
    assert await run == result


async def test_f25_the_window_holds_and_stops_get_past_hanging_starts(eventually):
    jobs = Jobs(SimpleNamespace(job_exists=never_asked))
    begun: list[str] = []

    def called(name: str):
        async def call() -> str:
            begun.append(name)
            return name

        return call

    tasks = [
        asyncio.create_task(jobs.run(called(f"start{n}"), start=True, timeout=60))
        for n in range(100)
    ]
    await asyncio.sleep(0.05)
    assert len(begun) < WINDOW
    tasks.append(asyncio.create_task(jobs.run(called("stop"), start=False, timeout=60)))
    await eventually(lambda: "stop" in begun)
    assert jobs.pending <= WINDOW
    while not all(task.done() for task in tasks):
        for name in list(begun):
            jobs.removed(name, "done")
        assert jobs.pending <= WINDOW
        await asyncio.sleep(0)
    assert len(begun) == 101
