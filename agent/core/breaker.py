"""The circuit breaker of an instance, a backend or a webhook, and waits that no clock stretches."""

from dataclasses import dataclass, replace
from enum import StrEnum

CLOCK_STEP = 60.0
"""Seconds that a corrected clock jumps at most; a larger jump is another time."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    failures: int
    """Failures in a row that open the breaker."""
    pause: float
    """Seconds that the breaker stays open before one trial."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """A circuit breaker: closed, open for a pause, one trial, closed or open again."""

    failures: int = 0
    opened_at: float | None = None
    trial_at: float | None = None

    def state(self, now: float, policy: BreakerPolicy) -> BreakerState:
        if self.opened_at is None:
            return BreakerState.CLOSED
        if self.trial_in(now, policy) > 0:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def trial_in(self, now: float, policy: BreakerPolicy) -> float:
        """Seconds until the breaker lets one trial through; 0 = it does now."""
        begun = self.opened_at if self.trial_at is None else self.trial_at
        return 0.0 if begun is None else remaining(begun + policy.pause, now, policy.pause)

    def may_try(self, now: float, policy: BreakerPolicy) -> bool:
        return self.trial_in(now, policy) <= 0

    def after_try(self, now: float, policy: BreakerPolicy) -> "Breaker":
        """Note that a try begins. A trial without a report is forgotten after one pause."""
        if self.state(now, policy) is BreakerState.HALF_OPEN:
            return replace(self, trial_at=now)
        return self

    def after_failure(self, now: float, policy: BreakerPolicy) -> "Breaker":
        failures = self.failures + 1
        if self.opened_at is not None and self.trial_at is None:
            # A late report of an earlier try: the pause already runs.
            return replace(self, failures=failures)
        if self.opened_at is not None or failures >= policy.failures:
            return Breaker(failures, now, None)
        return Breaker(failures)

    def without_last_failure(self, now: float, policy: BreakerPolicy) -> "Breaker":
        """Take the last failure back: the try did not reach what the breaker protects."""
        failures = max(self.failures - 1, 0)
        if self.opened_at is None or failures < policy.failures:
            return Breaker(failures)
        if now - self.opened_at > CLOCK_STEP:
            return replace(self, failures=failures)  # a late report: the pause already ran
        # That failure was the trial, which is still to be made.
        return Breaker(failures, self.opened_at - policy.pause)


CLOSED = Breaker()


def remaining(until: float, now: float, longest: float) -> float:
    """Seconds from `now` to `until`, never more than `longest`. An end further away was set under
    another clock: the wait is over, for cutting it at each look would make it endless."""
    if until - now > longest + CLOCK_STEP:
        return 0.0
    return min(max(until - now, 0.0), longest)
