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
        """Of the last minute, by whole stretches."""
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
        """Whether to show this line, and how many were hidden before it (once a minute)."""
        if not self.since <= now < self.since + MINUTE:
            return LogLimit(now, 1, 0), True, self.hidden
        if self.shown < most:
            return replace(self, shown=self.shown + 1), True, 0
        return replace(self, hidden=self.hidden + 1), False, 0


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """The share of operations that failed in the last minutes, from counters that only grow."""

    samples: tuple[tuple[float, int, int], ...] = ()
    """When, and the counts of errors and of good operations then; oldest first."""

    def note(self, now: float, errors: int, done: int, window: float) -> "ErrorRate":
        if self.samples and 0 <= now - self.samples[-1][0] < window / 20:
            return self
        # The newest one that is as old as the window: the share is counted from there.
        inside = [sample for sample in self.samples if now - window < sample[0] <= now]
        before = [sample for sample in self.samples if sample[0] <= now - window]
        return ErrorRate((*before[-1:], *inside, (now, errors, done)))

    def judge(self, errors: int, done: int, limit: float, least: int) -> Signal | None:
        """None below the limit, or where fewer than `least` operations prove nothing."""
        if not self.samples:
            return None
        _, errors_then, done_then = self.samples[0]
        failed, all_ = errors - errors_then, errors - errors_then + done - done_then
        if failed <= 0 or all_ < least or failed / all_ <= limit:
            return None
        sentence = f"{failed} of its last {all_} operations failed"
        return Signal("error_rate", Health.DEGRADED, sentence)
