"""What an alert is: its words, severity and numbers, and which alert silences which."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core.alerts.source import Expression
from agent.core.setting import setting


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
class AlertPolicy:
    """The [alerts] table."""

    interval: float = setting(15.0, "seconds between two evaluations of the alerts", low=0.1)
    patience: float = setting(
        1.0, "factor on the time for which each alert's condition must hold", low=0, high=1000
    )
    off: tuple[str, ...] = setting((), "names of alerts that the agent leaves out")
    machine: str = setting("", 'name of this machine in alerts; "" = its host name')
    alertmanager: str = setting(
        "", 'http://HOST:PORT of the Alertmanager that gets the alerts; "" = none', restart=True
    )
    runbooks: str = setting(
        "",
        'address of the runbook that alerts link to; "" = the agent\'s own page,'
        " unless it listens on loopback only",
    )
    availability: float = setting(
        0.0,
        "share of the time that sessions must be connected, for WaAvailabilityBurns; 0 = off",
        low=0,
        high=0.9999,
    )
    corrupted_together: int = setting(
        3, "corrupted sessions that raise WaSessionsCorruptedTogether", low=2
    )
    ended_together: int = setting(
        3,
        "sessions banned, locked or logged out within 15 minutes that raise"
        " WaSessionsEndedTogether",
        low=2,
    )
    crypto_error_rate: float = setting(
        0.10,
        "share of a session's messages that cannot be decrypted, for WaCryptoErrorRateHigh",
        low=0.001,
        high=1,
    )
    reconnects: int = setting(
        10, "reconnects of one session in 10 minutes, for WaReconnectStorm", low=1
    )
    fleet_share: float = setting(
        0.20,
        "share of all sessions that reconnect again and again, for WaFleetReconnectStorm",
        low=0.01,
        high=1,
    )
    response_time: float = setting(
        5.0, "seconds that a session takes to answer, for WaSessionResponseSlow", low=0.01
    )
    error_rate: float = setting(
        0.10,
        "share of operations, or of HTTP requests, that fail, for WaErrorRateHigh",
        low=0.001,
        high=1,
    )
    watchdog_restarts: int = setting(
        2, "hangs of one worker in half an hour, for WaWatchdogRestarts", low=0
    )
    host_memory_high: float = setting(
        0.80, "share of the machine's memory in use, for WaHostMemoryHigh", low=0.1, high=1
    )
    host_memory_critical: float = setting(
        0.95, "share of the machine's memory in use, for WaHostMemoryCritical", low=0.1, high=1
    )
    host_cpu: float = setting(
        0.90, "share of the machine's cores in use, for WaHostCpuHigh", low=0.1, high=1
    )
    disk_free: float = setting(
        0.10, "share of the disk that is free, for WaDiskSpaceLow", low=0.001, high=1
    )
    file_descriptors: float = setting(
        0.80,
        "share of the allowed open files in use by the agent, for WaFileDescriptorsHigh",
        low=0.1,
        high=1,
    )
    agent_starts: int = setting(
        2, "starts of the agent in half an hour, for WaAgentRestarting", low=1
    )


@dataclass(frozen=True, slots=True)
class Because:
    """A metric whose label `reason` says why, and the labels by which its series is found. No label
    of the alert itself: an alert whose labels change would be another one."""

    metric: str
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    group: Group
    severity: Severity
    for_seconds: float
    """Seconds for which the condition must hold before it fires."""
    condition: Expression
    summary: str
    """For people; {session}, {engine}, {backend} and {value} stand for what they say. {because} is
    the short code of the reason behind a colon, or nothing where there is none."""
    unit: Unit = Unit.PLAIN
    because: "Because | None" = None
    """Where {because} in the summary comes from."""

    @property
    def anchor(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While the source fires, the targets of the same machine and `equal` labels are silent."""

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
    # The state of sessions on a server that does not answer is old.
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
    Inhibition("WaSessionPasskeyRequired", ("WaSessionNeedsScan",), ("session",)),
    Inhibition("WaSessionPasskeySuspected", ("WaSessionNeedsScan",), ("session",)),
    Inhibition("WaSessionCorrupted", ("WaSessionDown",), ("session",)),
    Inhibition("WaSessionMemoryCritical", ("WaSessionMemoryHigh",), ("session",)),
    Inhibition("WaHostMemoryCritical", ("WaHostMemoryHigh",)),
    Inhibition("WaDiskFills", ("WaDiskSpaceLow",)),
)
