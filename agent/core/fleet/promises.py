"""Whether a machine may promise another one not to take it over for a ttl.

Who promises counts the other machine as seen (`sightings.vouched`), so a promise is kept nowhere:
an agent that restarts watches every machine for a ttl before it takes one over. What is on the
disk before it is sent is a takeover.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Takeover:
    """It happens only while the other machine's row still has this epoch and this number."""

    epoch: int
    renewals: int


Sent = Mapping[int, Takeover]
"""The last takeover of each machine that was sent to the database, by its id."""


def may_promise(sent: Sent, machine: int, epoch: int) -> bool:
    """A takeover whose answer was lost may have happened: until its outcome is known, the other
    machine must not count on us."""
    return machine not in sent or epoch > sent[machine].epoch


def settle(sent: Sent, epochs: Mapping[int, int], renewals: Mapping[int, int]) -> Sent:
    """Drop the takeovers that can no longer happen: the machine renewed in the same epoch."""
    return {
        machine: it
        for machine, it in sent.items()
        if epochs.get(machine) != it.epoch or renewals.get(machine, 0) <= it.renewals
    }
