"""What an agent that restarts may do before it has read what its machine owns.

An agent before it had the lease in this boot. A worker that runs with a lease is of a session that
this machine owns: a session is stopped before it is handed over, and a takeover comes after the
lease. So while the lease holds, those workers go on; nothing is started.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.core.fleet.lease import Lease
from agent.fleet.coordinator import Member
from agent.fleet.fleet_file import FleetMemory, Renewed

GoOn = Callable[[float, Collection[str] | None], None]
"""Until when the sessions go on that run with a lease: these, or (None) all."""


@dataclass(slots=True, eq=False)
class Resuming:
    go_on: GoOn | None = None
    active: bool = False
    """Until what this machine owns was read in settled records."""
    mine: Collection[str] | None = None
    """What this machine owns by records that are not settled; None: not read."""

    def begin(self, memory: FleetMemory, boot: str, ttl: float, place: str) -> Member | None:
        """As whom this machine goes on without the database; None: it does not."""
        last = memory.renewed
        if last is None or last != Renewed(last.machine, boot, ttl):
            return None
        self.active = True
        return Member(last.machine, memory.epoch, memory.renewals, place)

    def joined(self, before: Member, now: Member) -> None:
        """The database knows this machine: in another epoch its sessions were taken over."""
        self.active = self.active and (before.id, before.epoch) == (now.id, now.epoch)

    def pass_on(self, lease: Lease) -> None:
        if self.active and self.go_on is not None:
            self.go_on(lease.until, self.mine)
