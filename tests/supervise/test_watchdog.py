"""The agent's pings to its service manager: never from a timer alone."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.config.config import Config
from agent.core.health import HealthPolicy
from agent.core.model import InstanceId
from agent.supervise import upkeep as subject
from agent.supervise.facts import Settings
from agent.supervise.passes import Loop, Wakes
from agent.supervise.upkeep import Watchdog
from tests.conftest import Eventually

PING = b"WATCHDOG=1"


class Ears:
    """The manager's end: what was said, read without waiting."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)

    def pings(self) -> int:
        """Since the last time this was asked."""
        count = 0
        while True:
            try:
                count += self.sock.recv(999) == PING
            except BlockingIOError:
                return count


@pytest.fixture
async def ears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ears]:
    ears = Ears(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield ears
    ears.sock.close()


class Store:
    """A database that answers when it may."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.asked = 0

    async def answers(self) -> None:
        self.asked += 1
        await self.free.wait()


class Passes:
    """Passes that end when they may, and are due again at once."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.end.set()

    async def one(self, _id: InstanceId) -> float:
        await self.end.wait()
        return time.clock_gettime(time.CLOCK_BOOTTIME)


@asynccontextmanager
async def watched(store: Store, passes: Passes) -> AsyncIterator[Wakes]:
    wakes = Wakes()
    settings = Settings(Config(health=HealthPolicy(interval=0.1)))
    loop = Loop(wakes, passes.one, settings, {}, parallel=1)
    watchdog = Watchdog(loop, store, settings)
    wakes.wake(InstanceId("a"))
    tasks = [asyncio.create_task(each) for each in (loop.run(), watchdog.run())]
    try:
        yield wakes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if watchdog._notifier.socket is not None:
            watchdog._notifier.socket.close()


async def test_f08_a_database_that_does_not_answer_gets_no_ping(
    ears: Ears, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    store, passes = Store(), Passes()
    store.free.clear()
    async with watched(store, passes):
        await eventually(lambda: store.asked >= 4)
        assert ears.pings() == 0
        assert caplog.text.count("sends no watchdog ping: the database has not answered") == 1
        store.free.set()
        await eventually(ears.pings)


async def test_f08_passes_that_never_end_get_no_ping(
    ears: Ears,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, passes = Store(), Passes()
    passes.end.clear()
    async with watched(store, passes) as wakes:
        await eventually(ears.pings)
        monkeypatch.setattr(subject, "LONGEST_PASS", 0.3)
        wakes.wake(InstanceId("b"))  # the only place is taken: it waits
        await eventually(lambda: "no pass has ended" in caplog.text)
        ears.pings()
        asked = store.asked
        passes.end.set()
        await eventually(ears.pings)
        assert store.asked > asked


async def test_f08_a_loop_that_stands_sends_no_ping(ears: Ears, eventually: Eventually) -> None:
    """A thread or a timer of the library would go on speaking here."""
    async with watched(Store(), Passes()):
        await eventually(ears.pings)
        time.sleep(0.6)  # noqa: ASYNC251 - the fault itself
        assert ears.pings() == 0
        await eventually(ears.pings)


async def test_f30_a_manager_that_reads_nothing_holds_up_nothing(
    ears: Ears, eventually: Eventually
) -> None:
    store = Store()
    async with watched(store, Passes()):
        await eventually(lambda: store.asked)
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        filler.connect(ears.sock.getsockname())
        with pytest.raises(BlockingIOError):
            while True:
                filler.send(b"x" * 100)
        filler.close()
        rescue = threading.Timer(30, ears.pings)  # or a failure of this test would never end
        rescue.start()
        asked = store.asked
        await eventually(lambda: store.asked > asked + 4)
        assert rescue.is_alive(), "it waited for its reader"
        rescue.cancel()
        ears.pings()
        await eventually(ears.pings)


async def test_f30_a_manager_that_is_gone_ends_nothing(ears: Ears, eventually: Eventually) -> None:
    store = Store()
    async with watched(store, Passes()):
        await eventually(lambda: store.asked)
        ears.sock.close()
        asked = store.asked
        await eventually(lambda: store.asked > asked + 4)
