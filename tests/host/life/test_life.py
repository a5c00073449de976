"""A worker's runs: their limits, their ends and what each end is called."""

import asyncio
from signal import SIGABRT, SIGKILL, SIGTERM, Signals

import pytest

from agent.core.model import InstanceId, UnitState
from agent.errors import HostError
from agent.host.life import UNKNOWN, Exit, Limits, Worker
from tests.clocks import stopped


class Run:
    """`deaf`: signals that do not end it."""

    pid = 7

    def __init__(self, deaf: tuple[Signals, ...] = ()) -> None:
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.sent: list[tuple[Signals, float]] = []
        self.deaf = deaf
        self.begun = asyncio.get_running_loop().time()

    def send(self, number: Signals) -> None:
        self.sent.append((number, asyncio.get_running_loop().time() - self.begun))
        if number not in self.deaf and not self.ended.done():
            self.ended.set_result(Exit("" if number is SIGTERM else "signal", number))

    async def clear(self) -> int:
        return 0

    def release(self) -> None: ...


def make(*runs: Run, ready: bool = True, watchdog: float = 20.0) -> Worker:
    waiting = list(runs)

    def launch(its: Worker) -> Run:
        run = waiting.pop(0) if waiting else Run()
        run.begun = asyncio.get_running_loop().time()
        if ready:
            asyncio.get_running_loop().call_later(1.0, its.notice, {"READY": "1"})
        return run

    return Worker(InstanceId("a"), Limits(watchdog=watchdog), launch, lambda: None)


def how(its: Worker) -> tuple[UnitState, str, int]:
    return its.state, its.status.result, its.status.restarts


async def test_a_silent_run_is_aborted_then_killed_and_the_next_begins() -> None:
    run = Run(deaf=(SIGABRT,))
    its = make(run)
    await its.start()
    await run.ended
    assert run.sent == [(SIGABRT, 21.0), (SIGKILL, 26.0)]
    await asyncio.sleep(2.0)
    assert how(its) == (UnitState.ACTIVE, "watchdog", 1)


async def test_an_adopted_run_has_the_time_of_a_start_until_its_first_ping() -> None:
    run, its = Run(), make()
    its.adopt(run, "run", moved=False)
    await run.ended
    assert run.sent == [(SIGABRT, 60.0)]


async def test_an_adopted_run_that_told_of_its_ended_lease_is_not_restarted() -> None:
    run, its = Run(), make()
    its.adopt(run, "run", moved=False)
    its.notice({"STOPPING": "1", "EXIT_STATUS": "77"})
    run.ended.set_result(UNKNOWN)
    await asyncio.sleep(2.0)
    assert (*how(its), its.status.exit_status) == (UnitState.FAILED, "exit-code", 0, 77)


async def test_a_deadline_that_passed_while_the_agent_was_frozen_ends_no_worker() -> None:
    run = Run()
    its = make(run)
    await its.start()
    stopped().moved += 60.0
    await asyncio.sleep(1.0)
    assert its.state is UnitState.ACTIVE
    await run.ended  # it sends no ping now either
    assert run.sent[0][0] is SIGABRT


async def test_a_start_ends_at_its_time_or_with_its_worker() -> None:
    run = Run()
    its = make(run, ready=False)
    with pytest.raises(HostError, match="timeout"):
        await its.start()
    assert run.sent == [(SIGTERM, 60.0)]
    await its.stop()
    quiet = Run()
    its = make(quiet, ready=False)
    asyncio.get_running_loop().call_later(1.0, quiet.ended.set_result, Exit(""))
    with pytest.raises(HostError, match="protocol"):
        await its.start()


@pytest.mark.parametrize(("after", "sent"), [(0.0, []), (1.0, [(SIGTERM, 1.0)])])
async def test_a_stop_overtakes_a_start_and_both_end(
    after: float, sent: list[tuple[Signals, float]]
) -> None:
    run = Run()
    its = make(run, ready=False)
    start = asyncio.create_task(its.start())
    await asyncio.sleep(after)
    await its.stop()
    with pytest.raises(HostError, match="cannot start a"):
        await start
    assert (its.state, its.status.main_pid, run.sent) == (UnitState.INACTIVE, 0, sent)


async def test_a_long_save_may_extend_its_time() -> None:
    run = Run(deaf=(SIGTERM,))
    its = make(run)
    await its.start()
    stop = asyncio.create_task(its.stop())
    await asyncio.sleep(20.0)
    its.notice({"EXTEND_TIMEOUT_USEC": "15000000"})
    await stop
    assert run.sent == [(SIGTERM, 1.0), (SIGKILL, 36.0)]
    assert how(its) == (UnitState.FAILED, "timeout", 0)


@pytest.mark.parametrize(("apart", "state"), [(1.2, "failed"), (30.0, "active")])
async def test_five_ends_within_a_minute_are_the_last(apart: float, state: str) -> None:
    runs = [Run() for _ in range(5)]
    its = make(*runs, watchdog=600.0)
    await its.start()
    for run in runs:
        await asyncio.sleep(apart)
        run.ended.set_result(Exit("signal", SIGKILL))
    await asyncio.sleep(2.0)
    assert how(its) == (state, "start-limit-hit" if state == "failed" else "signal", 5)
    its.reset_failed()
    assert its.state == ("inactive" if state == "failed" else "active")
    await its.start()
    assert its.state is UnitState.ACTIVE
