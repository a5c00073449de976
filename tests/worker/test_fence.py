"""The fence of a session of a fleet: with a lease only, and not a moment past it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError, LeaseOver
from agent.worker.leased import fence
from tests.waiting import Pauses
from tests.worker.conftest import slept_for

OVER = LeaseOver.exit_status
"""Of a worker that ended before the kernel killed it, `fence.KERNEL` seconds past its lease."""
IN_TIME = "the lease of this machine ended: disconnected"
"""It says something else where its engine was not disconnected within `fence.DISCONNECT`."""


STILL = 0.3
"""Seconds for which the machine itself may stand still in the midst of a fence's deadlines."""


async def lease(bench: Any, seconds: float) -> float:
    until = boot_now() + seconds
    assert await bench.link.call("lease", {"until": until}) == {}
    return until


async def last_lease(bench: Any, seconds: float, ahead: float = 0.0) -> float:
    """One that ends soon. A lease that has ended when it comes changes nothing."""
    while True:
        try:
            return await lease(bench, ahead + seconds)
        except EngineError as error:
            assert error.code == "lease_over"
            seconds *= 3


async def ended_in_time(bench: Any, pauses: Pauses) -> None:
    """On a machine that stood still, a later stage of the fence may be what ended it."""
    ended = await bench.ended()
    if pauses.longest < STILL:
        assert ended == OVER
        assert IN_TIME in bench.errors()
    else:
        assert ended in (OVER, -signal.SIGKILL)


def start(bench: Any) -> None:
    bench.identity(settings=bench.quick, leased=True)
    bench.start(identity=False, watchdog=1.0)


async def test_without_a_lease_it_waits_and_touches_nothing(bench: Any) -> None:
    start(bench)
    link = await bench.linked()
    claim = await bench.status(Status.DISCONNECTED, "no_lease")
    assert claim.raw == "waiting for this machine's lease"
    await bench.until(lambda: f"STATUS={claim.raw}" in bench.notices)
    pings = bench.notices.count("WATCHDOG=1")
    await bench.until(lambda: bench.notices.count("WATCHDOG=1") > pings + 1)
    assert (await link.call("probe"))["claim"]["reason"] == "no_lease"
    for do, args in (
        ("connect", {}),
        ("send", {"message": {"to": "x", "text": "y"}}),
        ("regenerate_keys", {"peers": ["x"]}),
        ("save", {}),
        ("logout", {}),
        ("command", {"name": "scan", "arguments": {}}),
    ):
        with pytest.raises(EngineError, match="waiting for this machine's lease") as refused:
            await link.call(do, args)
        assert refused.value.code == "no_lease"
    assert list(bench.session.iterdir()) == []
    await lease(bench, 30)
    await bench.status(Status.CONNECTED)


async def test_a_stop_while_it_waits_touches_nothing(bench: Any) -> None:
    start(bench)
    await bench.linked()
    bench.process.terminate()
    assert await bench.ended() == 0
    assert list(bench.session.iterdir()) == []


async def test_past_its_lease_it_disconnects_saves_nothing_and_ends(
    bench: Any, pauses: Pauses
) -> None:
    start(bench)
    await bench.linked()
    await lease(bench, 60)
    await bench.status(Status.CONNECTED)
    before = (bench.session / "sandbox.json").read_bytes()
    await bench.link.call("send", {"message": {"to": "x", "text": "y"}})
    until = await last_lease(bench, 0.3)
    await ended_in_time(bench, pauses)
    assert boot_now() - until >= 0
    assert (bench.session / "sandbox.json").read_bytes() == before
    if pauses.longest < STILL:
        await bench.until(lambda: bench.closed)
        assert bench.claims[-1].status is Status.DISCONNECTED and bench.claims[-1].paired
        assert any(notice.startswith("STOPPING=1") for notice in bench.notices)


async def test_every_lease_replaces_the_one_before(bench: Any, pauses: Pauses) -> None:
    start(bench)
    await bench.linked()
    first = await lease(bench, 2.5)
    for _ in range(5):
        await lease(bench, 60)
    await bench.until(lambda: boot_now() > first + fence.KERNEL + 0.2)
    await bench.status(Status.CONNECTED)
    assert bench.process.poll() is None
    await last_lease(bench, 0.2)
    await ended_in_time(bench, pauses)


async def test_a_running_worker_whose_machine_joins_and_leaves_a_fleet(
    bench: Any, pauses: Pauses
) -> None:
    link = await bench.connected()
    await link.call("lease", {"until": None})
    await lease(bench, 30)
    await link.call("lease", {"until": None})
    await link.call("send", {"message": {"to": "x", "text": "y"}})
    await last_lease(bench, 0.3)
    await ended_in_time(bench, pauses)


@pytest.mark.parametrize(
    ("until", "code"),
    [
        pytest.param("soon", "invalid_request", id="text"),
        pytest.param(True, "invalid_request", id="a truth"),
        pytest.param([], "invalid_request", id="a list"),
        pytest.param(1.7e9, "invalid_request", id="another clock's"),
        pytest.param(2**60, "invalid_request", id="huge"),
        pytest.param(-1.0, "lease_over", id="negative"),
        pytest.param(0, "lease_over", id="zero"),
    ],
)
async def test_an_invalid_lease_connects_nothing(bench: Any, until: object, code: str) -> None:
    start(bench)
    link = await bench.linked()
    with pytest.raises(EngineError) as refused:
        await link.call("lease", {"until": until})
    assert refused.value.code == code
    with pytest.raises(EngineError, match="waiting"):
        await link.call("connect")


async def test_a_frozen_worker_ends_when_it_goes_on_whatever_waits_for_it(
    bench: Any, pauses: Pauses
) -> None:
    start(bench)
    link = await bench.linked()
    await lease(bench, 60)
    await bench.status(Status.CONNECTED)
    until = await last_lease(bench, 1.0)
    os.kill(bench.process.pid, signal.SIGSTOP)
    calls = [
        asyncio.create_task(link.call("lease", {"until": boot_now() + left}))
        for left in (0.1, 0.5, 60)
    ]
    await bench.until(lambda: boot_now() > until)
    os.kill(bench.process.pid, signal.SIGCONT)
    assert await bench.ended() == OVER or pauses.longest > STILL
    assert all(
        isinstance(each, Exception) for each in await asyncio.gather(*calls, return_exceptions=True)
    )


async def test_a_frozen_worker_that_waits_takes_no_lease_that_ended_meanwhile(bench: Any) -> None:
    start(bench)
    link = await bench.linked()
    os.kill(bench.process.pid, signal.SIGSTOP)
    moments = [boot_now() + left for left in (0.1, 0.5)]
    calls = [asyncio.create_task(link.call("lease", {"until": each})) for each in moments]
    await bench.until(lambda: boot_now() > moments[-1])
    os.kill(bench.process.pid, signal.SIGCONT)
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, EngineError) and answer.code == "lease_over"
    await bench.status(Status.DISCONNECTED, "no_lease")
    await lease(bench, 30)
    await bench.status(Status.CONNECTED)


async def test_the_kernel_kills_a_frozen_worker(bench: Any, pauses: Pauses) -> None:
    start(bench)
    await bench.linked()
    until = await last_lease(bench, 0.5)
    os.kill(bench.process.pid, signal.SIGSTOP)
    frozen = boot_now()
    assert await bench.ended() == -signal.SIGKILL or frozen > until
    late = boot_now() - until - fence.KERNEL
    assert late < 0.5 + pauses.longest
    assert late >= 0 or frozen > until


async def test_the_kernel_kills_a_worker_whose_event_loop_stands_still(
    bench: Any, pauses: Pauses
) -> None:
    start(bench)
    await bench.linked()
    await lease(bench, 60)
    await bench.status(Status.CONNECTED)
    until = await last_lease(bench, 2.5)
    await bench.fault("hang", lasting=60.0)
    assert await bench.ended() == -signal.SIGKILL
    assert boot_now() - until < fence.KERNEL + 0.5 + pauses.longest


SLEPT = 100_000
"""Seconds by which the boot clock is ahead of the monotonic one where a machine slept so long."""


async def test_the_boot_clock_decides_on_a_machine_that_slept(bench: Any, pauses: Pauses) -> None:
    bench.inside = slept_for(SLEPT)
    start(bench)
    link = await bench.linked()
    with pytest.raises(EngineError) as refused:
        await link.call("lease", {"until": boot_now() + SLEPT - 1})
    assert refused.value.code == "lease_over"
    await lease(bench, SLEPT + 60)
    await bench.status(Status.CONNECTED)
    until = await last_lease(bench, 0.3, ahead=SLEPT)
    await ended_in_time(bench, pauses)
    assert boot_now() + SLEPT - until >= 0


async def test_a_full_disk_does_not_keep_it_connected(
    make_bench: Any, small_disk: Callable[[str], Path], pauses: Pauses
) -> None:
    disk = small_disk("size=256k")
    bench = make_bench(disk)
    start(bench)
    await bench.linked()
    await lease(bench, 60)
    await bench.status(Status.CONNECTED)
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(1024))
    await last_lease(bench, 0.3)
    await ended_in_time(bench, pauses)
