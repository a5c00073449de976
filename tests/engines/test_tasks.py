"""Tasks beside an engine's calls: their errors are reported, their ends are waited for."""

import asyncio
import threading

import pytest

from agent.engines.tasks import Tasks, cancel, in_thread
from agent.errors import EngineError


async def test_an_unexpected_error_is_reported_and_an_expected_one_is_not() -> None:
    crashes: list[BaseException] = []
    tasks = Tasks(crashes.append, expected=(EngineError,))

    async def fail(error: Exception) -> None:
        raise error

    unexpected = ValueError("a bug")
    tasks.start(fail(EngineError("cannot do it")), "expected")
    tasks.start(fail(unexpected), "unexpected")
    await tasks.wait()
    assert crashes == [unexpected]


async def test_cancelling_spares_the_task_that_asks_for_it() -> None:
    tasks = Tasks(lambda error: None)
    waits = tasks.start(asyncio.Event().wait(), "waits")  # type: ignore[arg-type]

    async def end_all() -> None:
        await tasks.cancel()

    await tasks.start(end_all(), "ends all")
    assert waits.cancelled()


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(5)
        done.set()

    caller = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    caller.cancel()
    asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()
    await cancel(caller)
