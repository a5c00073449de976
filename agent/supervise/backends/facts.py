"""What the agent knows of one backend right now, and one session's share of its worker's link."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.clock import boot_now
from agent.config import BackendDeclaration
from agent.core.backends.outage import Outage
from agent.core.backends.slowness import Slowness
from agent.core.model import (
    UNIT_ABSENT,
    Claim,
    InstanceId,
    RemoteSession,
    ServerClaim,
    UnitStatus,
)
from agent.link.client import Link
from agent.link.messages import Hello
from agent.supervise.backends.circuit import Circuit
from agent.supervise.worker_link import Listener

UNREAD_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class SeatLink:
    link: Link
    id: InstanceId
    circuit: Circuit
    forget: Callable[[InstanceId], None]
    slack: Callable[[], float] = lambda: 0.0
    """Seconds that each call may take longer, for its server is slow."""

    @property
    def hello(self) -> Hello:
        return self.link.hello

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        limit = timeout + self.slack()
        return await self.circuit.act(
            self.id, do, lambda: self.link.call(do, args, timeout=limit, id=self.id)
        )

    async def close(self) -> None:
        """End this session's share; the link stays open for the others."""
        self.forget(self.id)


@dataclass(slots=True)
class BackendFacts:
    """One backend. Times are of the boot clock unless the name says `wall`."""

    declared: BackendDeclaration
    name: InstanceId
    """Named by the same rule as instances."""
    roster: dict[InstanceId, Mapping[str, Any]]
    """The sessions its worker holds, as its file says."""
    circuit: Circuit
    unread: str = ""
    """Why the files of its key and password cannot be used: no worker is started for it."""
    unit: UnitStatus = UNIT_ABSENT
    link: Link | None = None
    run: str = ""
    """The newest run of its worker that the agent attached to."""
    attached_at: float = 0.0
    next_attach: float = 0.0
    failed_starts: int = 0
    next_start: float = 0.0
    stopped_by_hand: bool = False
    our_stop: bool = False
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
    next_check_wall: float | None = None
    """When its worker asks it again."""
    version: str = ""
    """The last that it told of itself."""
    hooks: int = 0
    """What its server told by itself."""
    outage: Outage = field(default_factory=lambda: Outage(boot_now(), down=True))
    """Of its worker or its server; until it was seen up it counts as away."""
    since_wall: float = field(default_factory=time.time)
    """When `outage.down` last changed."""
    away: set[InstanceId] = field(default_factory=set)
    """The backend's sessions that have not come back yet."""
    listener: dict[InstanceId, Listener] = field(default_factory=dict)
    words: dict[InstanceId, tuple[Claim, float]] = field(default_factory=dict)
    """The newest claim of each session in this run, and when it arrived."""
    names: tuple[RemoteSession, ...] = ()
    """The server's list of sessions, as last read."""
    checking: asyncio.Task[None] | None = None
    """A check on demand, between those that the worker makes by itself."""
    next_look: float = 0.0

    @property
    def up(self) -> bool:
        return self.link is not None and self.server is not None and self.server.up

    @property
    def unchecked(self) -> bool:
        """Nothing is known of it since the agent's start, as while its worker starts."""
        never = self.checked_at == float("-inf")
        return never and not (self.stopped_by_hand or self.failed_starts or self.unread)

    @property
    def reason(self) -> str:
        """Why it is away, as a code; "" = it is up."""
        return "" if self.up else (self.server.reason if self.server else "worker_away")

    @property
    def sentence(self) -> str:
        """Why it is not well, for people."""
        if self.link is None:
            if self.unread:
                return f"{self.unread}; the agent reads it again every {UNREAD_AGAIN:g} s"
            if self.stopped_by_hand:
                return "an operator stopped its worker"
            return f"its worker is {self.unit.state} and does not answer"
        if self.server is None:
            return "the agent has not checked its server yet"
        if not self.server.up:
            return self.server.sentence
        return "; ".join(filter(None, (self.circuit.sentence, self.warning)))

    @property
    def warning(self) -> str:
        """What its worker warns of while its server is up (a log that it cannot read, errors that
        name no session); "" = nothing."""
        return self.server.sentence if self.server is not None and self.server.up else ""

    def last_words(self, id: InstanceId) -> Claim | None:
        """The last claim of that session, its proof aged by the time since."""
        words = self.words.get(id)
        if words is None:
            return None
        claim, at = words
        if claim.proof_age is None:
            return claim
        return replace(claim, proof_age=claim.proof_age + boot_now() - at)
