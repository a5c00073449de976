"""When this machine last saw each other machine renew, by its own boot clock.

A renewal counts up a number in the database. A number that stands still for `ttl` means that
the machine's own lease has ended: its last renewal began before the number was seen.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from agent.core.fleet.lease import LeasePolicy


@dataclass(frozen=True, slots=True)
class Sighting:
    renewals: int
    at: float
    """When the answer that held this number was there."""


@dataclass(frozen=True, slots=True)
class Sightings:
    last_read: float | None = None
    machines: Mapping[int, Sighting] = field(default_factory=dict)


def look(
    sightings: Sightings, renewals: Mapping[int, int], answered: float, policy: LeasePolicy
) -> Sightings:
    """All machines' numbers were read; the answer was there at `answered`.

    After a gap in the reading every machine gets a whole `ttl`: the database was away from
    others as well, and they return as we do.
    """
    last = sightings.last_read
    in_touch = last is not None and answered - last < policy.ttl / 2
    seen = {}
    for machine, number in renewals.items():
        known = sightings.machines.get(machine)
        same = in_touch and known is not None and known.renewals == number
        seen[machine] = known if same and known else Sighting(number, answered)
    return Sightings(answered, seen)


def stands_still(sightings: Sightings, now: float, policy: LeasePolicy) -> frozenset[int]:
    """The machines that are asked whether they live: they may be taken over soon."""
    seen = sightings.machines.items()
    return frozenset(it for it, last in seen if now >= last.at + policy.ttl / 2)


def vouched(sightings: Sightings, machines: Set[int], now: float) -> Sightings:
    """They said at `now` that their leases hold: as if they had been seen renewing."""
    told = {it: replace(last, at=now) for it, last in sightings.machines.items() if it in machines}
    return replace(sightings, machines={**sightings.machines, **told})


def forgotten(sightings: Sightings, now: float, policy: LeasePolicy) -> frozenset[int]:
    """The machines whose word of where they renew holds no longer. Each is asked again `ttl` / 2
    after its word; one that died just before that renewed until then, for another `ttl`."""
    seen = sightings.machines.items()
    return frozenset(it for it, last in seen if now >= last.at + 2 * policy.ttl)


def rivals_after(
    named: Set[int], alive: Set[int], sightings: Sightings, now: float, policy: LeasePolicy
) -> frozenset[int]:
    """What the next renewal names: of those that are alive by the database's clock, and of those
    that were named, who has renewed within a ttl by ours. Another clock there, or an outage, makes
    no machine a stranger, and keeps none that is off among those that must promise."""
    fresh = {it for it, seen in sightings.machines.items() if now < seen.at + policy.ttl}
    return frozenset((alive | named) & fresh)


def lapses_at(sightings: Sightings, machine: int, policy: LeasePolicy) -> float | None:
    """When a machine that does not renew again may be taken over; None: never seen."""
    sighting = sightings.machines.get(machine)
    return None if sighting is None else sighting.at + policy.ttl
