"""What the agent shows of itself and of backends, for the API, the metrics and the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.core.figures import RECONNECT_SECONDS, Histogram
from agent.core.model import JournalEntry


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
class AgentStatus:
    version: str
    host: str
    started_wall: float
    ready: bool
    restoring: tuple[int, int] = (0, 0)
    """Instances brought back so far, and how many there are to bring back."""
    passes_total: int = 0
    pass_seconds_total: float = 0.0
    last_pass_age: float = 0.0
    passes_late: int = 0
    db_errors: Mapping[str, int] = field(default_factory=dict)
    link_refusals: Mapping[str, int] = field(default_factory=dict)
    dbus_connected: bool | None = None
    """None on a host that has no D-Bus."""
    jobs_pending: int = 0
    incidents: Mapping[str, str] = field(default_factory=dict)
    """For each engine (and backend) in use: the short code of what the members of the incident that
    goes on fail with; "" = none."""
    reconnects: Histogram = field(default_factory=lambda: Histogram(RECONNECT_SECONDS))
    """Seconds from a lost to the next connection, of sessions not stopped by hand."""
    config_read_wall: float = 0.0
    """When the settings in force were read."""
    config_refused: bool = False
    """The last reload failed."""
    alive: bool = True
    """False while `last_pass_age` means that the loop no longer turns."""


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
