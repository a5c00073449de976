"""What the simulated agent keeps of one instance between its passes."""

from dataclasses import dataclass, field

from agent.core.findings.crypto_window import CryptoWindow
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.recovery.repair import Repair
from scripts.simulation.session import Session

WALL = 1_700_000_000.0
"""Virtual wall time at the day's midnight."""


@dataclass(slots=True, eq=False)
class Known:
    session: Session
    instance: Instance
    record: SessionRecord
    group: str
    """What shares a fate: the engine, and elsewhere its backend."""
    crypto: CryptoWindow = field(default_factory=CryptoWindow)
    repair: Repair | None = None
    due: float = 0.0
    """When it is looked at again at the latest; past = nothing is due."""
    at_once: bool = False
    """Its backend is back: its own delay is waived once."""
    has_turn: bool = False
    """A step of its repair may begin in this pass."""
    seen_turn: int = -1
    failed_turn: int = -1
    """The turn for which a stuck verdict was already noted as a failure."""

    @classmethod
    def of(cls, session: Session) -> "Known":
        id, backend = InstanceId(f"i{session.number:03}"), session.place.name
        settings = {"backend": backend} if backend else {}
        group = f"{session.engine}/{backend}" if backend else session.engine
        instance = Instance(id, session.engine, True, settings)
        return cls(session, instance, SessionRecord(paired=session.paired), group)
