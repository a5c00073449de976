"""The fence of a session of a fleet: with a lease only, and not a moment past it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from agent.clock import boot_now
from agent.core.words import ConnectionStatus as Status
from agent.errors import EngineError
from agent.worker import fence
from tests.full import fill
from tests.refused import refused

BY_ITSELF, BY_THE_KERNEL = fence.LEASE_OVER, -signal.SIGKILL


async def lease(bench: Any, seconds: float) -> float:
    until = boot_now() + seconds
    assert await bench.link.call("lease", {"until": until}) == {}
    return until


async def last_lease(bench: Any, seconds: float = 0.3) -> float:
    """One that ends soon. One that has ended when it comes changes nothing."""
    while True:
        try:
            return await lease(bench, seconds)
        except EngineError as error:
            assert error.code == "lease_over"
            seconds *= 3


async def start(bench: Any) -> Any:
    bench.identity(settings=bench.quick, leased=True)
    bench.start(identity=False, watchdog=1.0)
    return await bench.linked()


async def connected(bench: Any) -> None:
    await start(bench)
    await lease(bench, 60)
    await bench.status(Status.CONNECTED)


async def test_without_a_lease_it_waits_and_touches_nothing(bench: Any) -> None:
    link = await start(bench)
    await bench.status(Status.DISCONNECTED, "no_lease")
    await bench.until(lambda: "STATUS=DISCONNECTED (no_lease)" in bench.notices)
    pings = bench.notices.count("WATCHDOG=1")
    await bench.until(lambda: bench.notices.count("WATCHDOG=1") > pings + 1)
    assert (await link.call("probe"))["claim"]["reason"] == "no_lease"
    for do, args in (
        ("connect", {}),
        ("send", {"message": {"to": "5511900000001", "text": "y"}}),
        ("regenerate_keys", {"peers": ["x"]}),
        ("save", {}),
        ("logout", {}),
        ("command", {"name": "scan", "arguments": {}}),
    ):
        with refused(EngineError, "no_lease", match="waiting for this machine's lease"):
            await link.call(do, args)
    await link.call("lease", {"until": boot_now() + 30, "extend": True})
    assert list(bench.session.iterdir()) == []
    await lease(bench, 30)
    await bench.status(Status.CONNECTED)


async def test_a_stop_while_it_waits_touches_nothing(bench: Any) -> None:
    await start(bench)
    bench.process.terminate()
    assert await bench.ended() == 0
    assert list(bench.session.iterdir()) == []


async def test_past_its_lease_it_ends_and_saves_nothing(bench: Any) -> None:
    await connected(bench)
    before = (bench.session / "sandbox.json").read_bytes()
    await bench.link.call("send", {"message": {"to": "5511900000001", "text": "y"}})
    until = await last_lease(bench)
    assert await bench.ended() in (BY_ITSELF, BY_THE_KERNEL)
    assert boot_now() >= until
    assert (bench.session / "sandbox.json").read_bytes() == before


async def test_its_own_timer_ends_it(monkeypatch: pytest.MonkeyPatch, eventually: Any) -> None:
    monkeypatch.setattr(fence, "KillTimer", Mock())
    monkeypatch.setattr(os, "_exit", exits := Mock())
    own = fence.Fence(engine := AsyncMock(), Mock(), Mock())
    await own.lease({"until": boot_now() + 1.0})
    await eventually(lambda: exits.called, within=20)
    assert (exits.call_args.args, engine.disconnect.await_count) == ((fence.LEASE_OVER,), 1)
    own.close()


async def test_every_lease_replaces_the_one_before(bench: Any) -> None:
    await start(bench)
    first = await last_lease(bench, 1.5)
    await lease(bench, 60)
    await bench.until(lambda: boot_now() > first + fence.KERNEL + 0.2)
    await bench.status(Status.CONNECTED)
    assert bench.process.poll() is None


@pytest.mark.parametrize(
    ("until", "code"),
    [
        pytest.param("soon", "invalid_request", id="text"),
        pytest.param(True, "invalid_request", id="a truth"),
        pytest.param(1.7e9, "invalid_request", id="another clock's"),
        pytest.param(-1.0, "lease_over", id="negative"),
    ],
)
async def test_an_invalid_lease_connects_nothing(bench: Any, until: object, code: str) -> None:
    link = await start(bench)
    with refused(EngineError, code):
        await link.call("lease", {"until": until})
    with pytest.raises(EngineError, match="waiting"):
        await link.call("connect")


async def test_a_frozen_worker_takes_no_lease_that_came_too_late(bench: Any) -> None:
    await connected(bench)
    until = await last_lease(bench, 1.5)
    os.kill(bench.process.pid, signal.SIGSTOP)
    call = asyncio.create_task(bench.link.call("lease", {"until": boot_now() + 60}))
    await bench.until(lambda: boot_now() > until)
    os.kill(bench.process.pid, signal.SIGCONT)
    assert await bench.ended() in (BY_ITSELF, BY_THE_KERNEL)
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Exception)


async def test_the_kernel_kills_a_frozen_worker(bench: Any) -> None:
    await start(bench)
    until = await last_lease(bench, 1.5)
    os.kill(bench.process.pid, signal.SIGSTOP)
    assert await bench.ended() == BY_THE_KERNEL
    assert boot_now() >= until + fence.KERNEL


async def test_the_kernel_kills_a_worker_whose_event_loop_stands_still(bench: Any) -> None:
    await connected(bench)
    await last_lease(bench, 2.5)
    await bench.fault("hang", lasting=60.0)
    assert await bench.ended() == BY_THE_KERNEL


async def test_a_full_disk_does_not_keep_it_connected(
    make_bench: Any, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=256k")
    bench = make_bench(disk)
    await connected(bench)
    fill(disk)
    await last_lease(bench)
    assert await bench.ended() in (BY_ITSELF, BY_THE_KERNEL)
