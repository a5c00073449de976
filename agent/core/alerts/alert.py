"""What an alert is: its words, how bad it is, its numbers, and which one speaks for which."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core.alerts.source import Expression


class Group(StrEnum):
    PERFORMANCE = "performance"
    CONNECTIVITY = "connectivity"
    SYSTEM = "system"
    APPLICATION = "application"


class Severity(StrEnum):
    NONE = "none"
    WARNING = "warning"
    CRITICAL = "critical"


class Unit(StrEnum):
    """How an alert's value is shown."""

    PLAIN = "humanize"
    SHARE = "humanizePercentage"
    SECONDS = "humanizeDuration"
    BYTES = "humanize1024"


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """The numbers of the conditions. Shares are 0 to 1, times are seconds."""

    corrupted_together: int = 3
    ended_together: int = 3
    crypto_error_rate: float = 0.10
    reconnects: int = 10
    fleet_share: float = 0.20
    response_time: float = 5.0
    error_rate: float = 0.10
    watchdog_restarts: int = 2
    memory_high: float = 0.80
    memory_critical: float = 0.95
    host_memory_high: float = 0.80
    host_memory_critical: float = 0.95
    host_cpu: float = 0.90
    disk_free: float = 0.10
    file_descriptors: float = 0.80
    agent_starts: int = 2
    availability: float = 0.0
    """The share of the time that sessions shall be connected; 0 = no alert about it."""


@dataclass(frozen=True, slots=True)
class Because:
    """A metric whose label `reason` says why, and the labels by which its series is found.

    No label of the alert itself: an alert whose labels change is another one.
    """

    metric: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    group: Group
    severity: Severity
    hold: float
    """So many seconds the condition must hold before it fires."""
    condition: Expression
    summary: str
    """For people; {session}, {engine}, {backend} and {value} stand for what they say.

    {because} is the short code of the reason behind a colon, or nothing where there is none.
    """
    unit: Unit = Unit.PLAIN
    because: "Because | None" = None
    """Where {because} in the summary comes from."""

    @property
    def anchor(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While the source fires, these say nothing new: same machine, and the same of `equal`."""

    source: str
    silences: tuple[str, ...]
    """Names; a name that ends in * stands for all that begin so."""
    equal: tuple[str, ...] = ()


_OF_A_SESSION = (
    "WaSession*",
    "WaCircuitOpen",
    "WaReconnectStorm",
    "WaCryptoErrorRateHigh",
    "WaKeyRegenerationFailed",
    "WaWatchdogRestarts",
)

INHIBITIONS = (
    Inhibition("WaAgentDown", (*_OF_A_SESSION, "WaFleet*")),
    # Whatever is said of a session on a server that does not answer is old.
    Inhibition("WaBackendDown", _OF_A_SESSION, ("backend",)),
    Inhibition("WaSessionsCorruptedTogether", ("WaSessionCorrupted",)),
    Inhibition("WaSessionGivenUp", ("WaSessionDown", "WaCircuitOpen"), ("session",)),
    Inhibition("WaSessionTemporaryBan", ("WaSessionDown", "WaCircuitOpen"), ("session",)),
    Inhibition(
        "WaSessionClientOutdated",
        ("WaSessionDown", "WaCircuitOpen", "WaSessionGivenUp"),
        ("session",),
    ),
    # It was down before its circuit opened, and says why.
    Inhibition("WaSessionDown", ("WaCircuitOpen", "WaSessionNeedsScan"), ("session",)),
    Inhibition("WaSessionCorrupted", ("WaSessionDown",), ("session",)),
    Inhibition("WaSessionMemoryCritical", ("WaSessionMemoryHigh",), ("session",)),
    Inhibition("WaHostMemoryCritical", ("WaHostMemoryHigh",)),
    Inhibition("WaDiskFills", ("WaDiskSpaceLow",)),
)
