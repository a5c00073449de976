"""Whether the database has been up for a full ttl.

Until then its records may be older than the leases that machines hold, so no session starts or
moves. Counted by this machine's boot clock, because the database's own clock jumps.
"""

from dataclasses import dataclass

from agent.core.fleet.lease import LeasePolicy


@dataclass(frozen=True, slots=True)
class Settling:
    server: str = ""
    """Names the run of the database, and the last loss of records that was accepted."""
    since: float = 0.0
    """When this machine heard of it first."""
    first: bool = True
    """It is the one that this machine's agent began with: how long it runs is only its word."""

    def heard(self, server: str, now: float) -> "Settling":
        if server == self.server:
            return self
        return Settling(server, now, first=not self.server)

    def settled(self, its_word: bool, now: float, policy: LeasePolicy) -> bool:
        return now >= self.since + policy.ttl or (self.first and its_word)
