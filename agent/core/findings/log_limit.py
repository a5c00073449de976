"""How many lines about one contact the log gets: a flood must not end the process by its log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

_MOST_PEERS = 50


@dataclass(frozen=True, slots=True)
class LogLimit:
    """A few lines per contact and minute: a flood of errors must not end the process by its log."""

    since: float = 0.0
    shown: int = 0
    hidden: int = 0

    def counts(self, now: float, per: float = 60.0) -> bool:
        """Whether its minute goes on."""
        return self.since <= now < self.since + per

    def note(self, now: float, most: int = 5, per: float = 60.0) -> "tuple[LogLimit, bool, int]":
        """Whether to show this line, and how many were hidden before it (once a minute)."""
        if not self.counts(now, per):
            return LogLimit(now, 1, 0), True, self.hidden
        if self.shown < most:
            return replace(self, shown=self.shown + 1), True, 0
        return replace(self, hidden=self.hidden + 1), False, 0


def limit_of(
    limits: Mapping[str, LogLimit], peer: str, now: float
) -> tuple[dict[str, LogLimit], str]:
    """The limit that holds for a line about this contact, and the limits without the old ones.
    Beyond so many contacts all others share one: a whole group out of step is a flood too."""
    if peer in limits:
        return dict(limits), peer
    kept = {contact: limit for contact, limit in limits.items() if limit.counts(now)}
    return kept, peer if len(kept) < _MOST_PEERS else ""
