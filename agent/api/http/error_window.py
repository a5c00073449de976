"""The error rate of the last minutes, updated at each reading."""

import time
from collections import deque
from collections.abc import Callable

WINDOW = 300.0
"""Seconds over which failures are compared with attempts."""
_SPACING = 10.0

Totals = tuple[float, float]
"""Successes and failures since the agent's start."""


class ErrorWindow:
    """Failures divided by attempts, since the reading of five minutes ago or since the start. The
    trouble error_rate uses the same rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: deque[tuple[float, Totals]] = deque([(clock(), (0.0, 0.0))])

    def rate(self, totals: Totals) -> float | None:
        """None without attempts."""
        now = self._clock()
        # One reading before the window stays: the window begins there.
        while len(self._readings) > 1 and now - self._readings[1][0] >= WINDOW:
            self._readings.popleft()
        first = self._readings[0][1]
        if totals[0] < first[0] or totals[1] < first[1]:
            self._readings.clear()  # an instance was deleted, and its counts with it
            first = (0.0, 0.0)
        if not self._readings or now - self._readings[-1][0] >= _SPACING:
            self._readings.append((now, totals))
        done, failed = totals[0] - first[0], totals[1] - first[1]
        return round(failed / (done + failed), 4) if done or failed else None
