"""A machine's promises not to take over another one for a while.

A promise is on the disk before it is given: an agent that restarts keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.core.fleet.lease import LeasePolicy


@dataclass(frozen=True, slots=True)
class Takeover:
    """It happens only while the other machine's row still has this epoch and this number."""

    epoch: int
    renewals: int


@dataclass(frozen=True, slots=True)
class Promises:
    boot: str
    """The boot whose clock the times are of."""
    until: Mapping[int, float] = field(default_factory=dict)
    """By the other machine's id, this machine's boot clock at which a promise ends."""
    takeovers: Mapping[int, "Takeover"] = field(default_factory=dict)
    """The last one of each machine that was sent to the database."""

    def binds(self, machine: int, now: float) -> bool:
        return now < self.until.get(machine, now)


def give(
    promises: Promises, machine: int, epoch: int, now: float, policy: LeasePolicy
) -> Promises | None:
    """With one more promise to a machine in its `epoch`; None: it may not be given.

    A takeover whose answer was lost may have happened: until its outcome is known, the other
    machine must not count on us.
    """
    sent = promises.takeovers.get(machine)
    if sent is not None and epoch <= sent.epoch:
        return None
    lasting = {other: at for other, at in promises.until.items() if now < at}
    until = max(lasting.get(machine, 0.0), now + policy.ttl)
    return replace(promises, until={**lasting, machine: until})


def begin_takeover(promises: Promises, machine: int, takeover: Takeover) -> Promises:
    """To be on the disk before the takeover is sent to the database."""
    return replace(promises, takeovers={**promises.takeovers, machine: takeover})


def settle(promises: Promises, epochs: Mapping[int, int], renewals: Mapping[int, int]) -> Promises:
    """Drop the takeovers that can no longer happen: the machine renewed in the same epoch."""
    open_ones = {
        machine: sent
        for machine, sent in promises.takeovers.items()
        if epochs.get(machine) != sent.epoch or renewals.get(machine, 0) <= sent.renewals
    }
    return replace(promises, takeovers=open_ones)


def after_boot(promises: Promises, boot: str, now: float, policy: LeasePolicy) -> Promises:
    """What was read from the disk; the clock of an earlier boot is gone, so all begin again."""
    if promises.boot == boot:
        return promises
    return replace(promises, boot=boot, until=dict.fromkeys(promises.until, now + policy.ttl))
