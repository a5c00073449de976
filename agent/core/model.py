"""Instances and their records, what is seen of a worker, verdicts and the journal's entries; the
words shared with workers are in words.py.

Times named `at`, `since`, `..._at` are seconds of the boot clock (CLOCK_BOOTTIME: it never jumps);
times named `..._wall` are Unix seconds, for people and for what must outlive a reboot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from agent.core import words
from agent.core.breaker import CLOSED, Breaker
from agent.core.recovery.repair import Repair
from agent.core.words import Category, ConnectionStatus, InstanceId, SessionFiles, parse_instance_id

# Words that most importers of this module need as well.
__all__ = ["Category", "ConnectionStatus", "InstanceId", "SessionFiles", "parse_instance_id"]


class Health(StrEnum):
    HEALTHY = "healthy"
    DISCONNECTED = "disconnected"
    DEGRADED = "degraded"
    STUCK = "stuck"
    CORRUPTED = "corrupted"
    NOT_FOUND = "not_found"


class Override(StrEnum):
    """An operator's start or stop of one session; it holds until the machine boots again."""

    NONE = "none"
    STOPPED = "stopped"
    STARTED = "started"


class UnitState(StrEnum):
    """A worker's life as its host tells it (systemd's words)."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    ACTIVE = "active"
    DEACTIVATING = "deactivating"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Instance:
    """One WhatsApp session as an operator or a backend's list created it."""

    id: InstanceId
    engine: str
    enabled: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    created_wall: float = 0.0

    @property
    def backend(self) -> str:
        """The other program's server that runs the session; "" = it runs on this machine."""
        name = self.settings.get("backend")
        return name if isinstance(name, str) else ""

    @property
    def remote(self) -> str:
        """The session's name on the backend."""
        name = self.settings.get("remote")
        return name if isinstance(name, str) and name else self.id

    @property
    def adopted(self) -> bool:
        """True if others made its session on the backend: it is not the agent's to delete, or to
        make again by itself."""
        told = self.settings.get(words.ADOPTED)
        adopted = told if isinstance(told, bool) else bool(self.settings.get("remote"))
        return bool(self.backend) and adopted


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The part of a session that outlives the agent and the machine's boot: a row of the store."""

    status: ConnectionStatus = ConnectionStatus.DISCONNECTED
    status_since_wall: float = 0.0
    reason: str = ""
    attempts: int = 0
    """Starts and reconnects by the agent since the last success."""
    not_before_wall: float = 0.0
    flaps: int = 0
    """Connections in a row that did not last; they lengthen the delay."""
    strikes: int = 0
    """Drops since the last lasting connection whose reason allows few tries only."""
    breaker: Breaker = CLOSED
    """The session's circuit; its times are Unix times."""
    override: Override = Override.NONE
    override_boot: str = ""
    """The boot in which `override` was made; in another boot it is void."""
    seen_run: str = ""
    """The newest run seen, and the boot it was seen in."""
    seen_boot: str = ""
    stopped_run: str = ""
    """The run that the agent stopped or is stopping: its end is no failure."""
    restart_of: str = ""
    """The run that an operator wants replaced; "" = none."""
    start_asked: bool = False
    """True by an operator's order: start now, whatever made the session fail before."""
    past_looks: bool = False
    """True by an operator's order: try once now without waiting for the address."""
    repair: Repair | None = None
    """The last repair, so that it outlives the agent."""
    paired: bool = False
    account: str = ""
    needs_passkey: bool = False
    """True if the account needs a passkey to link a device: only a person ends the pairing."""
    generation: int = 0
    """Number of writes of the identity file: of two that differ, the higher one is newer."""


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One worker as its host sees it at one moment."""

    state: UnitState
    run: str = ""
    """The run's name: systemd's InvocationID, or what the process host made up."""
    main_pid: int = 0
    restarts: int = 0
    """Restarts by the host itself since it was last started or reset."""
    result: str = "success"
    """Why the last run ended, in systemd's words: exit-code, signal, watchdog, oom-kill, ..."""
    exit_status: int = 0
    status_text: str = ""
    """The worker's words to systemd; for a session on a backend without a seat: why its start
    failed."""
    job_pending: bool = False
    masked: bool = False
    lost: bool = False
    """True if the worker's socket was removed: the next agent would not find the worker."""
    since: float = 0.0
    """Boot time at which the unit entered `state`."""

    @property
    def runs(self) -> bool:
        return self.state in (UnitState.ACTIVE, UnitState.ACTIVATING, UnitState.DEACTIVATING)


UNIT_ABSENT = UnitStatus(UnitState.INACTIVE)


@dataclass(frozen=True, slots=True)
class ClaimFact:
    """A claim of the present run and when it arrived."""

    claim: words.Claim
    at: float
    since: float
    """Boot time at which this run first claimed `claim.status`, or at which that lost its proof."""
    phase_since: float = 0.0
    progress_since: float = 0.0
    """Boot time at which `claim.progress` last grew; 0 = it did not."""

    def proved_at(self) -> float | None:
        return None if self.claim.proof_age is None else self.at - self.claim.proof_age

    @property
    def is_light(self) -> bool:
        """True if the heavy part of the start is over: processes run, the page is loaded."""
        light = self.claim.phase in ("pairing", "login", "sync")
        return light or self.claim.status not in UNSETTLED or self.claim.reason == words.NOT_TOLD

    @property
    def deadline(self) -> float | None:
        """Boot time at which the claimed phase is overdue; None if no phase is running."""
        if (phase := PHASES.get(self.claim.phase)) is None or self.claim.status not in UNSETTLED:
            return None
        return max(self.phase_since, self.progress_since) + phase.limit


@dataclass(frozen=True, slots=True)
class ProbeFact:
    ok: bool
    at: float
    seconds: float
    failures: int = 0
    """Failed probes in a row."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """One finding of a check beside the session's own state: memory, crypto errors, silence."""

    name: str
    level: Health
    """How bad the finding is by itself: degraded, stuck or corrupted."""
    detail: str
    """One sentence for people."""


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    health: Health
    state: ConnectionStatus
    reason: str
    """A short code; "" = none."""
    sentence: str
    should_cleanup: bool = False
    after: str = ""
    """During a start: the reason for which the session had ended before; "" = none is known."""
    guess: str = ""
    """A possible cause that nothing proves, as a sentence; no history repeats it. "" = none."""

    @property
    def healthy(self) -> bool:
        return self.health is Health.HEALTHY


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of history. Append-only; `cursor` is given by the store."""

    kind: str
    """A short stable code: created, enabled, status, verdict, action, outcome, operator, ..."""
    sentence: str
    category: Category = Category.SESSION
    instance: InstanceId | None = None
    wall: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)
    cursor: int = 0


class Phase(NamedTuple):
    limit: float
    """The longest time in seconds; of a sync without progress."""
    words: str
    """The sentence for people while the phase goes on."""


PHASES = {
    "process": Phase(10.0, "its worker starts"),
    "attached": Phase(30.0, "its browser or connection starts"),
    "loaded": Phase(60.0, "WhatsApp loads"),
    "injected": Phase(30.0, "the injected script prepares WhatsApp's page"),
    "pairing": Phase(120.0, "WhatsApp accepted the code; the pairing goes on"),
    "login": Phase(60.0, "it logs in"),
    "sync": Phase(180.0, "it syncs"),
}
"""In the order in which a start passes through them. After the time of `pairing` a passkey is
suspected. An engine may leave phases out."""

UNSETTLED = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING, ConnectionStatus.RECONNECTING)
"""The states that should pass by themselves."""
