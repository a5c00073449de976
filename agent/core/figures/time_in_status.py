"""How long a session has been in each status, by a clock that never jumps.

The wall clock has no place here: one that is set back would make a counter shrink, and
Prometheus takes a counter that shrinks for one that began at 0 and adds all of it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.words import ConnectionStatus


@dataclass(frozen=True, slots=True)
class StatusTime:
    """`spent` holds the seconds of each status until `entered`; since then it is `status`."""

    status: ConnectionStatus = ConnectionStatus.DISCONNECTED
    entered: float = 0.0
    """A moment of the boot clock."""
    spent: Mapping[ConnectionStatus, float] = field(default_factory=dict)

    def enter(self, status: ConnectionStatus, now: float) -> "StatusTime":
        if status is self.status:
            return self
        return StatusTime(status, now, self.totals(now))

    def totals(self, now: float) -> dict[ConnectionStatus, float]:
        since = max(now - self.entered, 0.0)
        return {**self.spent, self.status: self.spent.get(self.status, 0.0) + since}

    def with_earlier(self, earlier: Mapping[ConnectionStatus, float]) -> "StatusTime":
        """The same, on top of what an agent before this one counted."""
        both = {*self.spent, *earlier}
        spent = {one: self.spent.get(one, 0.0) + earlier.get(one, 0.0) for one in both}
        return replace(self, spent=spent)
