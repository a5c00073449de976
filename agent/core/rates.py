"""Counts of what happens: per minute, and for the log."""

from dataclasses import dataclass, replace

MINUTE = 60.0
_STRETCH = 10.0


@dataclass(frozen=True, slots=True)
class PerMinute:
    stretches: tuple[tuple[float, int], ...] = ()
    """When each stretch began, and how many came in it."""

    def note(self, now: float) -> "PerMinute":
        begun = now - now % _STRETCH
        if self.stretches and self.stretches[-1][0] == begun:
            *older, (_, count) = self.stretches
            return PerMinute((*older, (begun, count + 1)))
        return PerMinute((*_within(self.stretches, now), (begun, 1)))

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
