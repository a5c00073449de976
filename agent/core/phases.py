"""The phases of a session's start and how long each may take. A stuck start is named by its
phase."""

from dataclasses import dataclass

from agent.core.model import Claim, ClaimFact, ConnectionStatus
from agent.core.words import NOT_TOLD

PHASES = ("process", "attached", "loaded", "injected", "pairing", "login", "sync")
"""In the order in which a start passes through them; an engine may leave some out."""

IN_WORDS = {
    "process": "its worker starts",
    "attached": "its browser or connection starts",
    "loaded": "WhatsApp loads",
    "injected": "the injected script prepares WhatsApp's page",
    "login": "it logs in",
    "pairing": "WhatsApp accepted the code; the pairing goes on",
    "sync": "it syncs",
}
"""What goes on in each phase, for people."""

PASSING = (ConnectionStatus.INITIALIZING, ConnectionStatus.LOADING, ConnectionStatus.RECONNECTING)
"""The states that should pass by themselves."""


_LIGHT = ("pairing", "login", "sync")


def is_light(claim: Claim) -> bool:
    """Whether the heavy part of its start is over: its processes run, its page is loaded."""
    return claim.phase in _LIGHT or claim.status not in PASSING or claim.reason == NOT_TOLD


@dataclass(frozen=True, slots=True)
class PhaseDeadlines:
    """The [phases] table."""

    process: float = 10.0
    """Seconds until a started worker answers the agent."""
    attached: float = 30.0
    """Seconds until the engine is attached to its browser or socket."""
    loaded: float = 60.0
    """Seconds until WhatsApp's page or handshake is loaded."""
    injected: float = 30.0
    """Seconds until the injected script runs in the page."""
    login: float = 60.0
    """Seconds until a QR code or a login appears."""
    pairing: float = 120.0
    """Seconds from an accepted code until the pairing is complete; after them a passkey is
    suspected."""
    sync: float = 180.0
    """Seconds that the first sync may go without progress."""

    def limit(self, phase: str) -> float | None:
        """Seconds for a phase; None for a phase without a limit."""
        return getattr(self, phase) if phase in PHASES else None


def phase_deadline(fact: ClaimFact, deadlines: PhaseDeadlines) -> float | None:
    """When the phase that is claimed is overdue; None when none is running."""
    limit = deadlines.limit(fact.claim.phase)
    if limit is None or fact.claim.status not in PASSING:
        return None
    return max(fact.phase_since, fact.progress_since) + limit


def overdue_phase(fact: ClaimFact, now: float, deadlines: PhaseDeadlines) -> str | None:
    """The phase in which a start is stuck."""
    deadline = phase_deadline(fact, deadlines)
    return fact.claim.phase if deadline is not None and now >= deadline else None
