"""What the agent knows of one backend right now."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace

from agent.backends.server import Server
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.backends.outage import Outage
from agent.core.backends.slowness import Slowness
from agent.core.model import Claim, Happening, InstanceId, RemoteSession, ServerClaim
from agent.link.client import Listener
from agent.supervise.backends.circuit import Circuit

UNREAD_AGAIN = 5.0


@dataclass(slots=True)
class BackendFacts:
    """One backend. Times are of the boot clock unless the name says `wall`."""

    declared: BackendDeclaration
    name: InstanceId
    """Named by the same rule as instances."""
    circuit: Circuit
    roster: dict[InstanceId, str] = field(default_factory=dict)
    """The sessions that are watched, each with the name of its run."""
    unread: str = ""
    """Why a file that it names (key, password, certificates) cannot be used: its server is not
    asked."""
    secret: BackendDeclaration | None = None
    """The declaration with its key, as last read."""
    served: Server | None = None
    task: asyncio.Task[None] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its task is begun: a task may take 20 s to end before the next one."""
    started_at: float = 0.0
    next_start: float = 0.0
    server: ServerClaim | None = None
    slowness: Slowness = field(default_factory=Slowness)
    cause: str = ""
    """The reason for which it is away, as the log has it."""
    warned: str = ""
    """The backend's last warning."""
    checked_wall: float = 0.0
    checked_at: float = float("-inf")
    """When the last claim about its server came."""
    asking: set[InstanceId] = field(default_factory=set)
    """Sessions that want to try, and wait for a good check."""
    version: str = ""
    """The last that it told of itself."""
    outage: Outage = field(default_factory=lambda: Outage(boot_now(), down=True))
    """Until it was seen up it counts as away."""
    since_wall: float = field(default_factory=time.time)
    """When `outage.down` last changed."""
    away: set[InstanceId] = field(default_factory=set)
    """The backend's sessions that have not come back yet."""
    listener: dict[InstanceId, Listener] = field(default_factory=dict)
    unheard: dict[InstanceId, deque[Happening]] = field(default_factory=dict)
    """What logs told since the agent's start of sessions that no pass listens to yet."""
    next_look: float = 0.0

    @property
    def up(self) -> bool:
        return self.server is not None and self.server.up

    @property
    def unchecked(self) -> bool:
        """Nothing is known of it since the agent's start."""
        return self.checked_at == float("-inf") and not self.unread

    @property
    def reason(self) -> str:
        """Why it is away, as a code; "" = it is up."""
        return "" if self.up else (self.server.reason if self.server else "not_checked")

    @property
    def sentence(self) -> str:
        """Why it is not well, for people."""
        if self.unread:
            return f"{self.unread}; the agent reads it again every {UNREAD_AGAIN:g} s"
        if self.server is None:
            return "the agent has not checked its server yet"
        if not self.server.up:
            return self.server.sentence
        return "; ".join(filter(None, (self.circuit.sentence, self.warning)))

    @property
    def warning(self) -> str:
        """What is odd while its server is up (a log that it cannot read, errors that name no
        session); "" = nothing."""
        return self.server.sentence if self.server is not None and self.server.up else ""

    @property
    def names(self) -> tuple[RemoteSession, ...]:
        """The server's list of sessions, as last read."""
        return () if self.served is None else self.served.sessions

    def last_words(self, id: InstanceId) -> Claim | None:
        """The last claim of that session, its proof aged by the time since."""
        fact = None if self.served is None else self.served.facts.get(id)
        if fact is None or fact.claim.proof_age is None:
            return None if fact is None else fact.claim
        return replace(fact.claim, proof_age=fact.claim.proof_age + boot_now() - fact.at)
