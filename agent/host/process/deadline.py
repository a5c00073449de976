"""One deadline, moved often and cheaply."""

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Moving it later costs no new timer: the old one looks again when it fires."""

    def __init__(self, passed: Callable[[float], None], renewed: Callable[[], float]) -> None:
        """`passed` gets the seconds by which the loop came late to it. `renewed`: a later moment of
        the loop's clock that counts instead, asked for in time."""
        self._passed = passed
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """From now; None: no deadline."""
        self._at = None if seconds is None else self._loop.time() + seconds
        if self._timer is not None and (self._at is None or self._timer.when() > self._at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._at is not None:
            self._arm(self._at)

    def extend(self, seconds: float) -> None:
        """At least this long from now; never sooner than it is, and only where there is one."""
        if self._at is not None and self._loop.time() + seconds > self._at:
            self.set(seconds)

    def extend_by_word(self, microseconds: str) -> None:
        """As a worker says it; what is no number changes nothing."""
        if microseconds.isascii() and microseconds.isdecimal() and len(microseconds) <= 12:
            self.extend(int(microseconds) / 1e6)

    def _look(self) -> None:
        if self._at is None or self._timer is None:
            return
        due, now = self._timer.when(), self._loop.time()
        self._timer = None
        self._at = max(self._at, self._renewed())
        if now < self._at:
            self._arm(self._at)
        else:
            self._at = None
            self._passed(now - due)

    def _arm(self, at: float) -> None:
        # The first look is early, at a whole second: the many that were renewed share that wake-up.
        # A worker that was not is looked at again, in time.
        early = float(math.floor(at))
        when = early if early > self._loop.time() else at
        self._timer = self._loop.call_at(when, self._look)
