"""The phases of a session's start and how long each may take. A stuck start is named by its phase.

Needs of a ClaimFact: claim.status, claim.phase, phase_since, progress_since.
"""

from dataclasses import dataclass

from agent.core.model import ClaimFact, ConnectionStatus

PHASES = ("process", "attached", "loaded", "injected", "login", "sync")
"""In the order in which a start passes through them; an engine may leave some out."""

IN_WORDS = {
    "process": "its worker starts",
    "attached": "its browser or connection starts",
    "loaded": "WhatsApp loads",
    "injected": "the injected script prepares WhatsApp's page",
    "login": "it logs in",
    "sync": "it syncs",
}
"""What goes on in each phase, for people."""

PASSING = (
    ConnectionStatus.INITIALIZING,
    ConnectionStatus.LOADING,
    ConnectionStatus.RECONNECTING,
)
"""The states that should pass by themselves."""


@dataclass(frozen=True, slots=True)
class PhaseDeadlines:
    """The [phases] table: seconds that each phase of a start may last."""

    process: float = 10.0
    """Until the worker's process speaks."""
    attached: float = 30.0
    """Until the browser or the socket is there."""
    loaded: float = 60.0
    """Until WhatsApp's page or handshake is there."""
    injected: float = 30.0
    login: float = 60.0
    """Until a QR code is there or the stored pairing is accepted."""
    sync: float = 180.0
    """Without progress of the sync."""

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
