"""How long the answered probes of the last minutes took, in stretches of time."""

from dataclasses import dataclass

WINDOW = 300.0
"""Seconds that the mean covers."""
_STRETCH = 30.0


@dataclass(frozen=True, slots=True)
class RecentTimes:
    stretches: tuple[tuple[float, int, float], ...] = ()
    """When each stretch began, how many answers came in it, and the seconds they took together."""

    def note(self, seconds: float, now: float) -> "RecentTimes":
        begun = now - now % _STRETCH
        kept, count, total = _within(self.stretches, now), 0, 0.0
        if kept and kept[-1][0] == begun:
            *older, (_, count, total) = kept
            kept = tuple(older)
        return RecentTimes((*kept, (begun, count + 1, total + seconds)))

    def mean(self, now: float) -> float | None:
        """Seconds, of the window by whole stretches; None: no probe was answered in it."""
        kept = _within(self.stretches, now)
        count = sum(count for _, count, _ in kept)
        return sum(total for _, _, total in kept) / count if count else None


def _within(
    stretches: tuple[tuple[float, int, float], ...], now: float
) -> tuple[tuple[float, int, float], ...]:
    return tuple(stretch for stretch in stretches if now - WINDOW < stretch[0] <= now)
