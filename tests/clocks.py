"""This process' clocks, which a world may stop. Imported before all else: defaults take a clock as
it is then."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

_time, _monotonic, _gettime, _sleep = time.time, time.monotonic, time.clock_gettime, time.sleep


class Clock:
    """All clocks begin at a whole second, the machine's always at the same, and move together:
    what is done at whole seconds or minutes is done in the same order, and rounded alike."""

    def __init__(self) -> None:
        self.moved, self.most = 0.0, math.inf
        self.wall, self.monotonic, self.boot = _time() // 1 + 1, 3600.0, 3600.0


_stopped: Clock | None = None


@contextmanager
def stopped_clocks() -> Iterator[Clock]:
    global _stopped  # noqa: PLW0603 - they are this process'
    assert _stopped is None
    _stopped = Clock()
    try:
        yield _stopped
    finally:
        _stopped = None


def stopped() -> Clock:
    assert _stopped is not None
    return _stopped


def _wall_now() -> float:
    return _time() if _stopped is None else _stopped.wall + _stopped.moved


def _monotonic_now() -> float:
    return _monotonic() if _stopped is None else _stopped.monotonic + _stopped.moved


def _gettime_now(which: int) -> float:
    if _stopped is None:
        return _gettime(which)
    return _stopped.moved + (_stopped.boot if which == time.CLOCK_BOOTTIME else _stopped.monotonic)


def _sleep_now(seconds: float) -> None:
    """A thread's sleep takes no time while the clocks are stopped: they move on by it."""
    if _stopped is None:
        _sleep(seconds)
    else:
        _stopped.moved += seconds


time.time, time.monotonic, time.clock_gettime = _wall_now, _monotonic_now, _gettime_now
time.sleep = _sleep_now
