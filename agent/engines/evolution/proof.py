"""Whether an open session is really connected: only an answer of WhatsApp through it proves that.

The query is for the account's own business profile: it changes nothing, no contact sees it, and
Baileys asks WhatsApp each time. Presence would pass into a dead socket unnoticed, and number checks
are answered from the server's database.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from agent.engines.evolution.answers import refusal_words, server_fault
from agent.engines.evolution.api import EvolutionApi
from agent.engines.remote.answers import Answer, ServerDown
from agent.errors import EngineError

BAILEYS = ("", "WHATSAPP-BAILEYS")
"""Only sessions of these integrations can be asked for proof."""
NO_ROUTE = (
    "the server, or a proxy before it, has no route POST /chat/fetchBusinessProfile, so whether its"
    " open sessions are connected is not proved; let that route pass, or set prove = false for this"
    " [[backend]] in agent.toml to believe what the server says"
)
_SHARE, _TURN_SHARE = 0.5, 0.125
"""Of a probe's time, for the query and for its turn; then the server is asked whether it lives."""
_DEAD = (
    "Connection Closed",
    "Connection Terminated",
    "Connection was lost",
    "Connection Failure",
    "Timed Out",
    "Cannot read properties of",
)
_REFUSED_BY_WHATSAPP = (
    "item-not-found",
    "bad-request",
    "not-authorized",
    "not-acceptable",
    "forbidden",
    "rate-overlimit",
    "internal-server-error",
    "service-unavailable",
)


class Proof(StrEnum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """No query got through."""


class Prover:
    """Asks sessions for proof; dead ones hold their turns long, so only half of all are theirs."""

    def __init__(self, api: EvolutionApi, parallel: int, probe_limit: Callable[[], float]) -> None:
        self._api = api
        self._turns = asyncio.Semaphore(max(1, parallel // 2))
        self._limit = probe_limit
        self.has_route = True
        """Whether the server, or a proxy before it, passes the query at all."""

    async def ask(self, name: str, account: str) -> Proof:
        """ServerDown when it is the server that does not answer."""
        try:
            async with asyncio.timeout(self._limit() * _TURN_SHARE):
                await self._turns.acquire()
        except TimeoutError:
            return Proof.UNKNOWN
        try:
            answer = await self._api.own_profile(name, account, self._limit() * _SHARE)
            lacks = server_fault("ask for a proof", answer) is not None
            if self.has_route is lacks:
                self.has_route = not lacks
                self._api.doubt()  # the next check tells it of the whole server
            return read_proof(answer)
        except ServerDown as down:
            if not down.reached:
                return Proof.UNKNOWN
            if down.reason != "timeout":
                raise
            # It is this session that hangs if the server still answers for it.
            await self._api.state(name, urgent=True)
            return Proof.DEAD
        finally:
            self._turns.release()


@dataclass(slots=True)
class Opening:
    """What is known of one session's present opening. Servers say open too early, and too long."""

    name: str
    prover: Prover | None
    """None: its server is not to be asked."""
    proof: Proof | None = None
    """None: nothing was asked yet."""
    owner_known: bool = False
    """The server told whose it is."""
    since: float = field(default_factory=time.monotonic)
    """What the server told before this is not of this opening."""

    def begin(self) -> None:
        """It is not open any more, or another one; or its server was away."""
        self.proof, self.owner_known, self.since = None, False, time.monotonic()

    def came_through(self) -> None:
        """A message of WhatsApp came through the session: that is a proof as well."""
        self.proof = Proof.ALIVE

    def lacks(self, integration: str) -> bool:
        """Whether it can be asked for a proof, and gave none yet."""
        unproved = self.proof in (None, Proof.DEAD)
        return unproved and self.prover is not None and integration in BAILEYS

    async def prove(self, integration: str, account: str) -> None:
        if self.prover is None or integration not in BAILEYS:
            return
        proof = await self.prover.ask(self.name, account)
        if proof is not Proof.UNKNOWN or self.proof is None:
            self.proof = proof
        if self.proof is Proof.DEAD:
            raise EngineError(
                "cannot query WhatsApp through the session: it says open and gives no answer",
                code="zombie",
            )


def read_proof(answer: Answer) -> Proof:
    if answer.good:
        return Proof.ALIVE
    words = refusal_words(answer.body)
    if any(sign in words for sign in _DEAD):
        return Proof.DEAD
    if any(sign in words for sign in _REFUSED_BY_WHATSAPP):
        return Proof.ALIVE
    return Proof.UNKNOWN
