"""Counts per minute, the share of failed operations, and how many lines the log gets of them."""

from dataclasses import dataclass, replace

from agent.core.model import Health, Signal

MINUTE = 60.0
_STRETCH = 10.0


@dataclass(frozen=True, slots=True)
class PerMinute:
    stretches: tuple[tuple[float, int], ...] = ()
    """When each stretch began, and how many came in it."""

    def note(self, now: float, more: int = 1) -> "PerMinute":
        begun = now - now % _STRETCH
        if self.stretches and self.stretches[-1][0] == begun:
            *older, (_, count) = self.stretches
            return PerMinute((*older, (begun, count + more)))
        return PerMinute((*_within(self.stretches, now), (begun, more)))

    def count(self, now: float) -> int:
        """The sum of the last minute, by whole stretches."""
        return sum(count for _, count in _within(self.stretches, now))


def _within(stretches: tuple[tuple[float, int], ...], now: float) -> tuple[tuple[float, int], ...]:
    # A stretch in the future comes from a clock that jumped.
    return tuple(stretch for stretch in stretches if now - MINUTE < stretch[0] <= now)


@dataclass(frozen=True, slots=True)
class LogLimit:
    """A few lines of a session in a minute: a flood of errors must not end the process by its
    log."""

    since: float = 0.0
    shown: int = 0
    hidden: int = 0

    def note(self, now: float, most: int = 20) -> "tuple[LogLimit, bool, int]":
        """True if this line is shown, and how many were hidden before it (once a minute)."""
        if not self.since <= now < self.since + MINUTE:
            return LogLimit(now, 1, 0), True, self.hidden
        if self.shown < most:
            return replace(self, shown=self.shown + 1), True, 0
        return replace(self, hidden=self.hidden + 1), False, 0


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """The share of operations that failed in the last window or two, from counters that only
    grow: when a window began, and the counts of errors and of good operations then."""

    before: tuple[float, int, int] = (0.0, 0, 0)
    last: tuple[float, int, int] = (0.0, 0, 0)

    def note(self, now: float, errors: int, done: int, window: float) -> "ErrorRate":
        over = not 0 <= now - self.last[0] < window
        return ErrorRate(self.last, (now, errors, done)) if over else self

    def judge(self, errors: int, done: int, limit: float, least: int) -> Signal | None:
        """None below the limit, or where fewer than `least` operations prove nothing."""
        failed, good = errors - self.before[1], done - self.before[2]
        if failed <= 0 or failed + good < least or failed / (failed + good) <= limit:
            return None
        words = f"{failed} of its last {failed + good} operations failed"
        return Signal("error_rate", Health.DEGRADED, words)
