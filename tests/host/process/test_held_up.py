"""A process that was frozen must not take the others' silence meanwhile for their death."""

import asyncio
import signal
import time
from unittest.mock import Mock

from agent.core.model import InstanceId, UnitState
from agent.host.process.life import Limits, Worker
from tests.conftest import Eventually


def adopted(child: Mock, limits: Limits) -> Worker:
    child.ended = asyncio.get_running_loop().create_future()
    worker = Worker(InstanceId("a"), limits, Mock(), lambda: None)
    worker.adopt(child, "run", moved=False)
    return worker


async def test_a_deadline_that_passed_while_the_agent_was_frozen_ends_no_worker(
    eventually: Eventually,
) -> None:
    child = Mock(pid=7)
    worker = adopted(child, Limits(watchdog=1.0, start_timeout=1.0))
    time.sleep(1.5)  # noqa: ASYNC251 - frozen: nothing of ours runs
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert worker.state is UnitState.ACTIVE
    await eventually(lambda: worker.state, UnitState.DEACTIVATING)  # it sends no ping now either
    assert child.send.call_args_list[0].args == (signal.SIGABRT,)
    worker.let_go()


async def test_a_ping_that_waits_in_the_socket_counts() -> None:
    child = Mock(pid=7)
    worker = adopted(child, Limits(watchdog=1.0))
    child.hears = lambda: worker.notice({"WATCHDOG": "1"}) or True
    worker._limit(0.01)
    await asyncio.sleep(0.05)
    assert worker.state is UnitState.ACTIVE
    worker.let_go()
