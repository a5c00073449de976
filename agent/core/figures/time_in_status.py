"""How long a session has been in each status, by a clock that never jumps: a counter that shrank
with the wall clock would look to Prometheus like one that began at 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.words import ConnectionStatus


@dataclass(frozen=True, slots=True)
class StatusTime:
    """`spent` has the seconds of each status until `entered`; since then it is `status`."""

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
