"""A process that was frozen must not take the others' silence meanwhile for their death."""

import asyncio
import signal
import time
from unittest.mock import Mock

from agent.config.sections import WorkerSection
from agent.core.model import InstanceId
from agent.host.process.deadline import Deadline
from agent.host.process.held_up import Pulse
from agent.host.process.phase import Phase
from agent.host.process.worker import ProcessWorker
from tests.conftest import Eventually


async def test_a_frozen_agent_notices_it_before_any_deadline_is_judged() -> None:
    passed: list[str] = []
    held: list[float] = []
    deadline = Deadline(lambda _late: passed.append("passed"), lambda: 0.0)

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


async def test_a_deadline_that_passed_while_the_agent_was_frozen_ends_no_worker(
    eventually: Eventually,
) -> None:
    """Also where it is looked at before the pulse is."""
    settings = WorkerSection(watchdog=1.0)
    host = Mock(settings=settings, notices=Mock(pinged=lambda _pid: 0.0))
    worker, child = ProcessWorker(InstanceId("a"), host), Mock()
    worker.adopt(child, "a run", ready=True, restarts=0)
    time.sleep(1.5)  # noqa: ASYNC251 - frozen: nothing of ours runs
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert worker.phase is Phase.RUNNING
    await eventually(lambda: worker.phase is Phase.ABORTING)  # it sends no ping afterwards either
    assert child.send.call_args_list[0].args == (signal.SIGABRT,)
    worker.let_go()


async def _a_second_later() -> float:
    """The longest time for which the loop did not turn."""
    begun = last = time.monotonic()
    longest = 0.0
    while last < begun + 1.1:
        await asyncio.sleep(0.02)
        last, before = time.monotonic(), last
        longest = max(longest, last - before)
    return longest
