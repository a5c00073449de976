"""How long a machine may run its sessions: until when its lease holds, and what extends it."""

from collections.abc import Set
from dataclasses import dataclass

from agent.core.setting import setting


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    ttl: float = setting(
        20.0, "seconds without a renewal after which another machine takes the sessions", low=6
    )
    margin: float = setting(
        4.0,
        "seconds before the end of `ttl` at which a machine disconnects its sessions:"
        " for clocks of different speed and for closing connections",
        low=2,
    )

    @property
    def renew_every(self) -> float:
        return self.ttl / 6

    @property
    def usable(self) -> float:
        """Seconds that a machine may run its sessions after it began to ask for a renewal."""
        return self.ttl - self.margin


@dataclass(frozen=True, slots=True)
class Lease:
    """A machine may run its sessions until its boot clock shows `until`."""

    until: float

    def holds(self, now: float) -> bool:
        return now < self.until


def renewed(lease: Lease, begun: float, policy: LeasePolicy) -> Lease:
    """The database recorded a renewal that this machine began to ask for at `begun`.

    Other machines count `ttl` from the moment at which they saw the renewal, which is
    later than `begun`: so this machine ends first.
    """
    return Lease(max(lease.until, begun + policy.usable))


def extended(
    lease: Lease, begun: float, rivals: Set[int], promised: Set[int], policy: LeasePolicy
) -> Lease:
    """The database is away, and this machine asked its rivals for a promise at `begun`.

    `rivals` are the machines that may take this one over: those that it named in its last
    renewal, answered or not. One that does not promise may be about to take over, and the
    lease ends as it would. A machine without rivals goes on alone.
    """
    return renewed(lease, begun, policy) if rivals <= promised else lease
