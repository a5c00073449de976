"""Fixtures and guards of every test."""

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import clocks  # noqa: F401 - the clocks before all that takes one
from tests.durations import Durations, processor_time
from tests.lacking import not_lent
from tests.order import Order
from tests.waiting import pause

# A test that a busy machine makes slow is not wrong. The examples are the same in each run;
# `scripts/trial seeds` draws new ones, with the profile "drawn".
_slow_is_fine = [hypothesis.HealthCheck.too_slow]
for _profile, _same in (("same", True), ("drawn", False)):
    hypothesis.settings.register_profile(
        _profile,
        deadline=None,
        suppress_health_check=_slow_is_fine,
        derandomize=_same,
        database=None,
    )
hypothesis.settings.load_profile("same")

# Without its bytecode each agent that is started compiles itself again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# An agent shows 0 for a worker that does not run at this moment, and os.kill takes 0 for this whole
# run, which would end without a word.
_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    if pid <= 0:
        raise ValueError(f"a test may not send signal {number} to {pid}: that is a whole group")
    _kill(pid, number)


os.kill = _kill_one

# Objects made until the tests are found stay to the end: each process of a run would spend time on
# collections that look through them again and again.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts pytest in the background has SIGINT ignored, and every child inherits
    # that: programs that are to end by SIGINT would not. A handler is not inherited.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Order(), "order")
    if config.getoption("numprocesses", None):
        gc.enable()  # this process looks for no tests itself
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(), "durations")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["spent"] = processor_time()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


Eventually = Callable[..., Awaitable[Any]]


def waiting(longest: float, pause: Callable[[float, float], float]) -> Eventually:
    """Wait until `probe` (plain or async) gives what is wanted; say what it gave last otherwise.

    `longest` guards against hanging: a promise of the product is a limit of its own."""

    async def wait(probe: Callable[[], Any], wanted: Any = True, *, within: float = longest) -> Any:
        begun = time.monotonic()
        while True:
            asked = time.monotonic()
            found = probe()
            if inspect.isawaitable(found):
                found = await found
            if bool(found) if wanted is True else found == wanted:
                return found
            now = time.monotonic()
            if now > begun + within:
                raise AssertionError(f"after {within} s: {found!r}, wanted {wanted!r}")
            await asyncio.sleep(pause(now - begun, now - asked))

    return wait


@pytest.fixture
def eventually() -> Eventually:
    return waiting(60.0, pause)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size (mount options of tmpfs); skip where that is refused."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            not_lent(f"this machine allows no mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        # Lazily, so that a file left open by a failed test keeps nothing mounted.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


SLOW = tuple(
    f"tests/{place}"
    for place in (
        *("daemon/", "baileys/", "scripts/", "standin/", "trial/"),
        *("engines/baileys/", "engines/web/"),
        *("page/", "moving/", "metrics/", "worker/", "host/process/", "store/", "fleet/test_r"),
    )
)
"""Real agents, workers, browsers and servers: not what one waits for at each save."""
REAL = frozenset({"make_agent", "make_bench"})
"""So are the tests that ask for one of these, wherever they stand."""


def pytest_itemcollected(item: pytest.Item) -> None:
    asked_for = getattr(item, "fixturenames", ())
    if item.nodeid.startswith(SLOW) or not REAL.isdisjoint(asked_for):
        item.add_marker(pytest.mark.slow)
