"""A process that was frozen must not take the others' silence meanwhile for their death."""

import asyncio
import time

from agent.host.process.deadline import Deadline
from agent.host.process.held_up import Pulse


async def test_a_frozen_agent_notices_it_before_any_deadline_is_judged() -> None:
    passed: list[str] = []
    held: list[float] = []
    deadline = Deadline(lambda: passed.append("passed"), lambda: 0.0)

    def held_up(seconds: float) -> None:
        held.append(seconds)
        deadline.extend(60.0)

    pulse = Pulse(held_up, limit=0.5)
    deadline.set(1.1)
    time.sleep(2.2)  # noqa: ASYNC251 - frozen: nothing of ours runs
    await _a_second_later()
    assert 1.0 < held[0] < 60.0
    assert not passed
    deadline.set(None)
    pulse.close()


async def test_a_loop_that_turns_is_not_held_up() -> None:
    held: list[float] = []
    pulse = Pulse(held.append, limit=0.9)
    await _a_second_later()
    pulse.close()
    assert not held


async def _a_second_later() -> None:
    loop = asyncio.get_running_loop()
    later: asyncio.Future[None] = loop.create_future()
    loop.call_later(1.1, later.set_result, None)
    await later
