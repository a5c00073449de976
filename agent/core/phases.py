"""The phases of a session's start and how long each may take."""

from dataclasses import dataclass

from agent.core.setting import setting

PHASES = ("process", "attached", "loaded", "injected", "login", "sync")
"""In the order in which a start passes through them; an engine may leave some out."""


@dataclass(frozen=True, slots=True)
class PhaseDeadlines:
    """The [phases] table: seconds that each phase of a start may last."""

    process: float = setting(10.0, "seconds until the worker's process speaks", low=0.1)
    attached: float = setting(30.0, "seconds to get hold of the browser or the socket", low=0.1)
    loaded: float = setting(60.0, "seconds until WhatsApp's page or handshake is there", low=0.1)
    injected: float = setting(30.0, "seconds until our code runs inside the page", low=0.1)
    login: float = setting(60.0, "seconds until the stored pairing is accepted", low=0.1)
    sync: float = setting(180.0, "seconds without progress of the first sync", low=0.1)

    def limit(self, phase: str) -> float | None:
        """Seconds for a phase; None for one that nobody set a limit to."""
        return getattr(self, phase) if phase in PHASES else None
