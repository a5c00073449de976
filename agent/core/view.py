"""What the agent shows of an instance and of itself: one frozen picture per pass, for the API, the
metrics and the command line. A view that did not change is the same object as before."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.core.figures import NO_COUNTS, Durations, RepairStatistics, StatusTime
from agent.core.model import (
    ClaimFact,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    Instance,
    JournalEntry,
    ProbeFact,
    SessionRecord,
    UnitStatus,
)
from agent.core.reasons import reason_of
from agent.core.recovery.repair import Kept, Repair

CRYPTO_RESULTS = ("ok", "failed")
CHECKS = ("deep", "recovery", "memory", "keys")
"""Beside the check of health, which is counted with its repairs."""
MESSAGE_DIRECTIONS = ("in", "out", "ack", "failed")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class InstanceView:
    instance: Instance
    desired: Desired
    record: SessionRecord
    unit: UnitStatus
    status: ConnectionStatus
    status_since_wall: float
    reason: str
    sentence: str
    verdict: HealthVerdict
    linked: bool = False
    claim: ClaimFact | None = None
    probe: ProbeFact | None = None
    proof_age: float | None = None
    """Age of the proof of `status` at the moment of `seen_wall`; None: never proved."""
    connected_since_wall: float | None = None
    started_wall: float | None = None
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    engine_version: str = ""
    """WhatsApp Web's, or its server's; "" = unknown."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By name, the last answers of session_figures.FIGURES."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: dict(NO_COUNTS))
    """By name and word, the counts of session_figures.COUNTS."""
    messages: Mapping[str, int] = field(default_factory=dict)
    counts_messages: bool = True
    """False: the engine reports no messages; their number is unknown, not 0."""
    errors: Mapping[str, int] = field(default_factory=dict)
    counted_since_wall: float | None = None
    """When the counts began: at the agent's start, or before it if the last one ended in order."""
    status_time: StatusTime = field(default_factory=StatusTime)
    """How long it was in each status, counted while an agent ran."""
    next_attempt_wall: float | None = None
    enabled_by_operator: bool = False
    probes: int = 0
    probe_seconds: float = 0.0
    """Answered probes and the sum of their answer times, since the agent began to count."""
    response_seconds: float | None = None
    """The mean of the last minutes (findings.response_time); None: nothing was measured in them."""
    seen_wall: float = 0.0
    """When this picture was taken."""
    circuit: str = "closed"
    """closed, open or half_open."""
    circuit_opens_wall: float | None = None
    """When an open circuit lets one trial through."""
    repair: Repair | None = None
    """The last repair, over or not."""
    kept: Kept | None = None
    """Why that repair keeps the pairing."""
    wait_reason: str = ""
    """Why it waits for others of its kind; "" = it does not."""
    in_incident: bool = False
    """It is a member of an incident that goes on, whose trouble covers it."""
    wait_sentence: str = ""
    """The wait reason with its numbers; "" = WAIT_SENTENCES says enough."""
    turns_before: int | None = None
    """How many go before it in the start queue; None: it waits for no turn."""
    crypto_operations: Mapping[str, int] = field(default_factory=dict)
    """Messages that could be decrypted (ok) and that could not (failed)."""
    crypto_lately: int = 0
    """Crypto errors in the sliding window."""
    repair_steps: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By step and result (done, failed)."""
    repair_seconds: float = 0.0
    """The seconds of those steps together."""
    memory_limit: int = 0
    """Bytes; 0 = none."""
    messages_per_minute: Mapping[str, int] = field(default_factory=dict)
    last_snapshot_wall: float | None = None
    snapshot_failure: str = ""
    """Why the last snapshot that was due is none to restore."""

    @property
    def attempts(self) -> int:
        """Tries that are under way; a connected session keeps its count for a minute, unseen."""
        return 0 if self.status is ConnectionStatus.CONNECTED else self.record.attempts


@dataclass(frozen=True, slots=True)
class BackendView:
    """Everything that is shown of a backend."""

    name: str
    engine: str
    url: str
    """Without a password."""
    up: bool = False
    reason: str = ""
    """A short code while it is not up (ServerClaim.reason, or not_checked)."""
    sentence: str = ""
    warning: str = ""
    """While it is up: what its logs leave unclear, or why they cannot be read."""
    version: str = ""
    """The server's own; "" = unknown."""
    since_wall: float = 0.0
    """Since when it is up, or is not."""
    checked_wall: float | None = None
    """When it was last checked; None: not yet."""
    seconds: float = 0.0
    """How long its last answer took."""
    sessions: int | None = None
    """All sessions on the server; None: unknown."""
    held: int = 0
    """Instances on it."""
    connected: int = 0
    """How many of those are connected."""
    breaker: str = "closed"
    """closed, open or half_open."""
    next_check_wall: float | None = None


@dataclass(frozen=True, slots=True)
class CheckTime:
    """So many checks, and their seconds together."""

    count: int = 0
    seconds: float = 0.0


def is_waiting(verdict: HealthVerdict, wait_reason: str) -> bool:
    """Whether a session that has a wait reason would be tried without it."""
    if verdict.reason in (wait_reason, "disabled", "stopped"):
        return True  # disabled, stopped: a start was ordered, and no pass has run since
    reason = reason_of(verdict.reason)
    idle = verdict.health in (Health.HEALTHY, Health.DISCONNECTED)
    return not (idle or reason.hopeless or reason.slow)


@dataclass(frozen=True, slots=True)
class AgentStatus:
    version: str
    host: str
    started_wall: float
    ready: bool
    restoring: tuple[int, int] = (0, 0)
    """Instances brought back so far, and how many there are to bring back."""
    passes_total: int = 0
    pass_seconds_total: float = 0.0
    last_pass_age: float | None = None
    passes_late: int = 0
    loop_lag: float = 0.0
    db_writes: int = 0
    db_write_seconds: float = 0.0
    db_errors: Mapping[str, int] = field(default_factory=dict)
    link_refusals: Mapping[str, int] = field(default_factory=dict)
    dbus_connected: bool | None = None
    """None on a host that has no D-Bus."""
    jobs_pending: int = 0
    incidents: Mapping[str, int] = field(default_factory=dict)
    """For each engine (and backend) in use: members of the incident that goes on, 0 = none."""
    incident_reasons: Mapping[str, str] = field(default_factory=dict)
    """By group: the short code of what the members of its incident fail with."""
    repairs: RepairStatistics = field(default_factory=RepairStatistics)
    durations: Durations = field(default_factory=Durations)
    waiting_starts: int = 0
    """Sessions that wait for their turn to start or reconnect."""
    db_bytes: int = 0
    """The database's file and its journal."""
    repairs_before: RepairStatistics = field(default_factory=RepairStatistics)
    """What of `repairs` an earlier agent counted: it stays out of the metrics."""
    checks: Mapping[str, CheckTime] = field(default_factory=dict)
    config_read_wall: float = 0.0
    """When the settings in force were read."""
    config_refused: bool = False
    """The last reload failed."""
    alive_limit: float = 30.0
    """A `last_pass_age` over this means that the loop no longer turns."""


# A journal entry and a moment as JSON shows them.


def wall_text(wall: float | None) -> str | None:
    """RFC 3339 in UTC with milliseconds; None and 0 (never) give None."""
    if not wall:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def show_event(entry: JournalEntry) -> dict[str, Any]:
    return {
        "cursor": entry.cursor,
        "time": wall_text(entry.wall),
        "category": entry.category.value,
        "kind": entry.kind,
        "instance": entry.instance,
        "sentence": entry.sentence,
        "detail": dict(entry.detail),
    }
