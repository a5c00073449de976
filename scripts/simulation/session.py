"""One session as it really is, and what a way of supervising must take in."""

from dataclasses import dataclass
from typing import Protocol

from scripts.simulation.places import Place


@dataclass(slots=True, eq=False)
class Session:
    number: int
    engine: str
    place: Place
    state: str = "off"
    """off, starting, connected, dropped, asks (for a scan)"""
    since: float = 0.0
    turn: int = 0
    """Counts changes of `state`; what belongs to an earlier turn is void."""
    reason: str = ""
    until: float | None = None
    phase: str = ""
    """In which a start hangs; "" = it does not."""
    heavy: bool = False
    """It starts, and loads the machine where it runs."""
    silent_since: float | None = None
    """It says connected and does nothing."""
    keys: str = ""
    """peer or account: messages that cannot be read."""
    damaged: bool = False
    paired: bool = True
    restorable: bool = False
    fate: str = ""
    """Why nothing but a person helps any more."""
    banned_until: float = 0.0
    condition: str = "down"
    condition_since: float = 0.0
    down_since: float | None = None
    """Begin of the present episode; None while it serves."""


class Supervising(Protocol):
    def boot(self, at: float) -> None: ...

    def changed(self, session: Session, at: float) -> None: ...

    def crashed(self, session: Session, at: float) -> None: ...

    def fell_silent(self, session: Session, at: float) -> None: ...

    def keys_failed(self, session: Session, at: float) -> None: ...

    def backend_gone(self, backend: Place, at: float) -> None:
        """It was looked at and did not answer."""

    def backend_back(self, backend: Place, at: float) -> None: ...
