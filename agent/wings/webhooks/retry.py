"""When a webhook is tried again, and which entries are too old to be sent."""

import asyncio
import time
from collections.abc import Callable

from agent.clock import boot_now
from agent.core.breaker import Breaker, BreakerState
from agent.wings.webhooks.deliveries import Pace, next_wait

CLOCK_JUMP = 3600.0
"""Seconds that the wall clock may gain on the boot clock; beyond them it was set."""


class RetryPatience:
    """Failures in a row, and the circuit that they open."""

    def __init__(self, pace: Pace, jitter: Callable[[], float]) -> None:
        self.failures = 0
        self._pace = pace
        self._jitter = jitter
        self._breaker = Breaker()

    @property
    def circuit(self) -> BreakerState:
        return self._breaker.state(boot_now(), self._pace.circuit)

    @property
    def gone(self) -> bool:
        """Whether so many tries failed that the circuit opened."""
        return self._breaker.opened_at is not None

    def begin_try(self) -> None:
        self._breaker = self._breaker.after_try(boot_now(), self._pace.circuit)

    def end(self) -> None:
        """After a delivery, or when an operator asked for a try now."""
        self._breaker, self.failures = Breaker(), 0

    def next_entry(self) -> None:
        """After a failure of the entry, not of the target: the next entry is tried at once."""
        self.failures = 0

    def after_failure(self, asked_wait: float, *, at_fault: bool) -> float:
        """Seconds to the next try; `asked_wait`: seconds that the target asked for."""
        now = boot_now()
        self.failures += 1
        if at_fault:
            self._breaker = self._breaker.after_failure(now, self._pace.circuit)
        wait = next_wait(self.failures, asked_wait, self._pace, self._jitter())
        return max(wait, self._breaker.opens_in(now, self._pace.circuit))


class AgeLimit:
    """Whether an entry is too old, by the clock at the start of its webhook."""

    def __init__(self, seconds: float, *, wall: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._wall = wall
        self._apart = wall() - boot_now()

    def is_over(self, wall: float) -> bool:
        now_wall = self._wall()
        if now_wall - boot_now() - self._apart > CLOCK_JUMP:
            return False  # the clock was set: ages by it are wrong
        return now_wall - wall > self._seconds


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
