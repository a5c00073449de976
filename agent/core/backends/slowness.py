"""How slowly a backend's server answers: the limit of what takes several requests grows with it."""

from collections import deque
from dataclasses import dataclass, field

STEPS = 8
"""The most requests, one after another, that a look at a session or its code takes."""
MOST = 120.0
"""Seconds: a limit grows by no more for a server that is slower still."""
_REMEMBERED = 12


@dataclass(slots=True)
class Slowness:
    """By the answers to the last checks; the slowest of them counts."""

    remembered: int = _REMEMBERED
    _seconds: deque[float] = field(default_factory=deque)

    def note(self, seconds: float) -> None:
        """The seconds that the server took for one answer."""
        self._seconds.append(seconds)
        while len(self._seconds) > self.remembered:
            self._seconds.popleft()

    @property
    def slack(self) -> float:
        """Seconds to add to a limit that a quick server would keep."""
        return min(STEPS * max(self._seconds, default=0.0), MOST)
