"""How many per minute: counts of the last sixty seconds in short stretches, bounded in size."""

from dataclasses import dataclass

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
        """Of the last minute, by whole stretches."""
        return sum(count for _, count in _within(self.stretches, now))


def _within(stretches: tuple[tuple[float, int], ...], now: float) -> tuple[tuple[float, int], ...]:
    # A stretch in the future comes from a clock that jumped.
    return tuple(one for one in stretches if now - MINUTE < one[0] <= now)
