"""Whether this machine may take over another one's sessions, and which of them move."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.core.fleet.lease import Lease, LeasePolicy
from agent.core.fleet.sightings import Sightings, lapses_at


class Refusal(StrEnum):
    """Why a takeover does not happen now."""

    EMPTY = "empty"
    HALTED = "halted"
    OWN_LEASE = "own_lease"
    RENEWS = "renews"
    TWO_DATABASES = "two_databases"
    """A machine renews its lease in another database: who owns what is true in neither."""
    NOT_A_RIVAL = "not_a_rival"
    """The machine did not know this one at its last renewal and may still run its sessions without
    the database; an operator who knows that it is dead can forget it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another machine's row in the database, as it was read."""

    id: int
    epoch: int
    rivals: frozenset[int]
    """The machines that it named in its last renewal: all that it asks for promises."""
    sessions: int


@dataclass(frozen=True, slots=True)
class Word:
    """What a machine says of itself while its number in the database stands still."""

    holds: bool
    """Its lease holds, by a renewal or by promises."""
    renewed_in: str = ""
    """How the database names itself that took the renewal; "" = it holds by promises."""


def elsewhere(words: Mapping[int, Word], server: str) -> frozenset[int]:
    """The machines that renew their leases in another database than this one."""
    return frozenset(
        id for id, it in words.items() if it.holds and it.renewed_in not in ("", server)
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """This machine, as far as a takeover asks for it."""

    id: int
    lease: Lease
    sightings: Sightings
    halted: bool = False
    elsewhere: frozenset[int] = frozenset()
    """Machines that renew in another database."""


def refuse_takeover(me: Standing, peer: Peer, now: float, policy: LeasePolicy) -> Refusal | None:
    """Why `me` may not take over `peer` at `now`; None: it may."""
    lapses = lapses_at(me.sightings, peer.id, policy)
    if peer.sessions == 0:
        return Refusal.EMPTY
    if me.halted:
        return Refusal.HALTED
    if me.elsewhere:
        return Refusal.TWO_DATABASES
    if not me.lease.holds(now):
        return Refusal.OWN_LEASE
    if lapses is None or now < lapses:
        return Refusal.RENEWS
    if me.id not in peer.rivals:
        return Refusal.NOT_A_RIVAL
    return None


class Failover(StrEnum):
    """What becomes of a session whose machine is lost."""

    WAIT = "wait"
    """It waits for its machine: a browser's profile of some minutes ago risks the pairing."""
    NEWEST = "newest"
    """Another machine starts it from the newest stored copy."""
