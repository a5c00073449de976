"""Faults that only a process of its own has: a hang, files that are damaged or gone."""

import signal
from typing import Any

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError, LinkError
from tests.refused import refused


def pings(bench: Any) -> int:
    return sum("WATCHDOG=1" in each for each in bench.notices)


async def test_hang_stops_the_pings_and_the_watchdogs_signal_shows_where(bench: Any) -> None:
    link = await bench.connected(watchdog=2)
    await bench.until(lambda: pings(bench) >= 2)
    await bench.fault("hang")
    with pytest.raises(LinkError):  # it hangs a moment after it said so
        while True:
            await link.call("probe", timeout=3.0)
    before = pings(bench)
    with refused(LinkError, "timeout"):
        await link.call("probe", timeout=3.0)
    assert pings(bench) == before
    bench.process.send_signal(signal.SIGABRT)  # as the manager does
    assert await bench.ended() == -signal.SIGABRT
    assert "Current thread" in bench.errors()


async def test_f43_corrupt_files_are_reported_and_left_as_they_are(bench: Any) -> None:
    await bench.connected()
    await bench.fault("corrupt-files")
    assert await bench.ended() == -signal.SIGKILL
    damaged = (bench.session / "sandbox.json").read_bytes()
    bench.start()
    link = await bench.linked()
    await bench.status(Status.AUTH_FAILURE, "session_damaged")
    await link.call("save")
    with pytest.raises(EngineError, match="was not read"):
        await link.call("logout")
    bench.process.terminate()
    assert await bench.ended() == 0
    assert (bench.session / "sandbox.json").read_bytes() == damaged
    (bench.session / "sandbox.json").rename(bench.session / "away")
    (bench.session / "sandbox.json").mkdir()
    bench.start()
    await bench.linked()
    await bench.status(Status.AUTH_FAILURE, "session_unreadable")


async def test_f42_a_session_folder_deleted_under_a_live_worker_is_never_recreated(
    bench: Any,
) -> None:
    link = await bench.connected()
    (bench.session / "sandbox.json").unlink()
    bench.session.rmdir()
    for order in ("save", "logout"):  # a logout that cannot be kept ends nothing
        with refused(EngineError, "save_failed", match=f"cannot save {bench.session}: No such"):
            await link.call(order)
    assert bench.claims[-1].status is Status.CONNECTED
    bench.process.terminate()
    assert await bench.ended() == 1
    assert not bench.session.exists()
    assert "not all was saved" in bench.errors()
