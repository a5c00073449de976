"""The figures of a fleet that /metrics shows and the alerts read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.figures.durations import Histogram

RENEWALS = ("renewed", "promised", "failed", "taken_over")
"""promised: the database was away, and every rival promised; failed: the lease was not extended."""
TAKEOVERS = ("done", "void")
MOVES = ("done", "undone", "refused")
"""undone: the session was started again on the machine that it should have left."""
PROMISES = ("given", "refused")
MACHINE_STATES = ("alive", "drained", "away", "lost")
"""away: drained, and its lease has ended; lost: the same without a drain."""

_RENEWAL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class FleetCounts:
    """Counted since the agent's start by the parts that do it: `counts.moves["done"] += 1`."""

    renewals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RENEWALS, 0))
    takeovers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TAKEOVERS, 0))
    moves: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MOVES, 0))
    promises: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PROMISES, 0))
    renewal_seconds: Histogram = field(default_factory=lambda: Histogram(_RENEWAL_BOUNDS))


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """One machine's picture of its fleet at one moment."""

    machine: str
    database_reachable: bool
    lease_seconds_left: float
    """0 when the lease has ended."""
    halted: bool
    machines: Mapping[str, int]
    """By state (MACHINE_STATES)."""
    owned: int
    """Sessions of this machine."""
    waiting: int
    """Sessions of the fleet that should run and whose machine cannot run them."""
    moving: int
    """Planned moves away from this machine that are under way."""
    commands_waiting: bool
    """Stored commands waited for this machine at its last renewal."""
    unwritable: bool = False
    """This machine cannot keep what it must remember, and renews no lease."""
    elsewhere: int = 0
    """Other machines that renew their leases in another database."""
    apart: int = 0
    """Other machines that would not promise to wait for this one."""
    copy_age_max: float = 0.0
    """Seconds since the oldest change of an own session that no stored copy holds; 0: none."""
    copy_bytes: int = 0
    """Sealed bytes of the own sessions' newest copies."""
    certificate_ends_wall: float | None = None
    """None: the listener has no certificate."""
    counts: FleetCounts = field(default_factory=FleetCounts)


def machine_state(*, alive: bool, drained: bool) -> str:
    if alive:
        return "drained" if drained else "alive"
    return "away" if drained else "lost"
