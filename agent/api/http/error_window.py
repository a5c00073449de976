"""The share of what fails lately, kept by whoever reads it: no clock of its own ticks."""

import time
from collections import deque
from collections.abc import Callable

WINDOW = 300.0
"""Seconds over which errors are compared with what was done."""
_SPACING = 10.0

Totals = tuple[float, float]
"""What was done well and what failed, since the agent's start."""


class ErrorWindow:
    """The share of what fails, since the reading of five minutes ago (or since the start).

    As WaErrorRateHigh reckons it: what failed is part of what was tried.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[tuple[float, Totals]] = deque([(clock(), (0.0, 0.0))])

    def rate(self, totals: Totals) -> float | None:
        """None while nothing was done."""
        now = self._clock()
        # One reading beyond the window stays: it is where the window begins.
        while len(self._kept) > 1 and now - self._kept[1][0] >= WINDOW:
            self._kept.popleft()
        begun = self._kept[0][1]
        if totals[0] < begun[0] or totals[1] < begun[1]:
            self._kept.clear()  # an instance was deleted, and its counts with it
            begun = (0.0, 0.0)
        if not self._kept or now - self._kept[-1][0] >= _SPACING:
            self._kept.append((now, totals))
        done, failed = totals[0] - begun[0], totals[1] - begun[1]
        return round(failed / (done + failed), 4) if done or failed else None
