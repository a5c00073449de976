"""How long each phase of a start may take. A stuck start is named by its phase."""

from dataclasses import dataclass

from agent.core.model import ClaimFact, ConnectionStatus


@dataclass(frozen=True, slots=True)
class PhaseDeadlines:
    """The [phases] table. Seconds."""

    process: float = 10.0
    """The worker says READY and its link is open."""
    attached: float = 30.0
    loaded: float = 60.0
    injected: float = 30.0
    login: float = 60.0
    """A QR code or a login."""
    sync: float = 180.0
    """From the last progress on."""


PHASES = ("process", "attached", "loaded", "injected", "login", "sync")
PASSING = (
    ConnectionStatus.INITIALIZING,
    ConnectionStatus.LOADING,
    ConnectionStatus.RECONNECTING,
)
"""The states that should pass by themselves."""


def phase_deadline(fact: ClaimFact, deadlines: PhaseDeadlines) -> float | None:
    """When the phase that is claimed is overdue; None when none is."""
    phase = fact.claim.phase
    if fact.claim.status not in PASSING or phase not in PHASES:
        return None
    limit: float = getattr(deadlines, phase)
    return max(fact.phase_since, fact.progress_since) + limit


def overdue_phase(fact: ClaimFact, now: float, deadlines: PhaseDeadlines) -> str | None:
    """The phase in which a start is stuck."""
    deadline = phase_deadline(fact, deadlines)
    return fact.claim.phase if deadline is not None and now >= deadline else None
