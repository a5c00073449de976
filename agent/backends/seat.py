"""One session on a backend: its share of the server's task; what that asks of each kind of server
(evolution.py, whaticket/api.py); and the circuit breaker of the server, through which it calls."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from agent.backends.http import ServerDown
from agent.clock import boot_now
from agent.core.breaker import Breaker, BreakerState
from agent.core.model import ClaimFact
from agent.core.words import Address, Claim, Happening, InstanceId
from agent.errors import EngineError, InvalidRequest, LinkError, WaError
from agent.link.client import Listener
from agent.link.wire import Hello
from agent.log import log

if TYPE_CHECKING:
    from agent.backends import evolution
    from agent.backends.backend import Backend
    from agent.backends.whaticket import api as whaticket

LOOK_LIMIT = 8.0
"""Seconds for one look, or 0.8 of a request's time if that is less."""
MOST_UNHEARD = 100
"""Happenings of one session that no pass listens to yet."""

Answer = Mapping[str, Any]
Look: TypeAlias = Callable[[Address, float], Awaitable[str]]
"""Why an address does not answer within so many seconds; "" = it does."""
ServerApi: TypeAlias = "evolution.Evolution | whaticket.Whaticket"
"""A server of one kind; its sessions are named as the server names them. Its list comes by one
request; the claim's reason and sentence are what a server that is up lacks. EngineError
`list_failed`: only the list does not come."""
ServerSession: TypeAlias = "evolution.Session | whaticket.Session"
"""One session on a server. ServerDown says that the server itself gave no usable answer, another
EngineError something of this session. An action that may end a pairing is called with a proof or a
person's word. `known` is what is known of it, without I/O."""


# One circuit breaker per backend: failures of its server in a row open it, one trial closes it.
# Calls for its sessions count, but not where the server cannot be reached. While the circuit is
# open the agent starts, connects and repairs none of its sessions. Checks go on: after a quick one,
# `CALM` seconds later, one session tries before the pause ends.

ACTS = frozenset({"connect", "restart", "renew", "regenerate_keys"})
"""Calls that make a server work for a session."""
QUICK, CALM = 1.0, 30.0
"""Seconds: of a quick check, and until such a one ends the pause."""
Call = Callable[[], Awaitable[Answer]]


@dataclass(slots=True)
class Circuit:
    backend: "Backend"
    """Hears when it opens, when it closes, and when quick checks let one session try."""
    breaker: Breaker = field(default_factory=Breaker)
    trial: InstanceId | None = None
    """The session whose call is the trial of a half-open circuit."""

    @property
    def state(self) -> BreakerState:
        state = self.breaker.state(boot_now(), self.backend.shared.breaker())
        return BreakerState.HALF_OPEN if self.trial is not None else state

    @property
    def sentence(self) -> str:
        """Why the agent tries none of its sessions; "" while it is closed."""
        state, failures = self.state, self.breaker.failures
        if state is BreakerState.CLOSED:
            return ""
        if state is BreakerState.HALF_OPEN:
            return f"its circuit is half open after {failures} failures: one session tries"
        left = self.breaker.opens_in(boot_now(), self.backend.shared.breaker())
        return f"its circuit is open for at most {left:.0f} s more after {failures} failures"

    def lets(self, id: InstanceId) -> bool:
        """True if this session may wait for its turn, or has it."""
        return self.breaker.may_try(boot_now(), self.backend.shared.breaker()) or id == self.trial

    def begin(self, id: InstanceId) -> bool:
        """True if this session may act now; the first one while half open is the trial."""
        if not self.lets(id):
            return False
        if id != self.trial and self.state is BreakerState.HALF_OPEN:
            self.trial, self.breaker = id, replace(self.breaker, trial_at=boot_now())
        return True

    def checked(self, seconds: float) -> None:
        """The list came after so many seconds: a quick one ends the pause."""
        now, pause = boot_now(), self.backend.shared.breaker().pause
        may_end = seconds <= QUICK and now - (self.breaker.opened_at or now) >= CALM
        if may_end and self.state is BreakerState.OPEN:
            self.breaker = replace(self.breaker, opened_at=now - pause)
            self.backend.circuit_changed(BreakerState.HALF_OPEN)

    async def act(self, id: InstanceId, do: str, call: Call) -> Answer:
        """Call the server for a session if the circuit allows it, and count how it answered."""
        if do in ACTS and not self.begin(id):
            raise EngineError(f"cannot {do} {id}: {self.sentence}", code="circuit_open")
        try:
            answer = await call()
        except ServerDown as down:
            if do in ACTS and down.reached:
                self._failed()
            raise
        else:
            if do in ACTS or id == self.trial:
                self.close()
            return answer
        finally:
            if id == self.trial:  # cancelled, or refused by the session: another one may try
                self.trial, self.breaker = None, replace(self.breaker, trial_at=None)

    def close(self) -> None:
        was, self.breaker = self.state, Breaker()
        self.trial = None
        if was is not BreakerState.CLOSED:
            self.backend.circuit_changed(BreakerState.CLOSED)

    def _failed(self) -> None:
        was = self.state
        self.breaker = self.breaker.after_failure(boot_now(), self.backend.shared.breaker())
        self.trial = None
        if was is BreakerState.CLOSED and self.state is not BreakerState.CLOSED:
            self.backend.circuit_changed(BreakerState.OPEN)


@dataclass(slots=True, eq=False, repr=False)
class Seat:
    """One session's share of its server's task: to a pass the same as the link to a worker."""

    backend: "Backend"
    id: InstanceId
    run: str
    session: "ServerSession | None" = None
    """None: it is not held yet."""
    remote: str = ""
    """The server's name of it."""
    listener: Listener | None = None
    unheard: deque[Happening] = field(default_factory=partial(deque, maxlen=MOST_UNHEARD))
    """Happenings that logs told since the agent's start, before a pass listened."""
    fact: ClaimFact | None = None
    """The newest claim."""
    looked: float = 0.0
    look: "asyncio.Task[None] | None" = None
    """The look that is under way."""
    waits: bool = False
    """True if that look has had no turn yet."""

    @property
    def hello(self) -> Hello:
        return Hello(self.id, self.run, self.backend.declared.engine, 0)

    def happened(self, what: Happening) -> None:
        if self.listener is not None:
            self.listener.on_happening(self.run, what)
        else:
            self.unheard.append(what)

    def last_words(self) -> Claim | None:
        """The last claim, the proof aged by the time since."""
        if self.fact is None:
            return None
        at = self.fact.proved_at()
        return replace(self.fact.claim, proof_age=None if at is None else boot_now() - at)

    def tell(self) -> None:
        if self.listener is not None and (claim := self.last_words()) is not None:
            self.listener.on_claim(self.run, claim)

    def note(self) -> None:
        """Keep what the server says of it now; the listener hears new words and a first proof."""
        if self.session is None or (claim := self.session.known.claim()) is None:
            return
        now, before = boot_now(), self.fact
        self.fact = ClaimFact(claim, at=now, since=now)
        if before is None or _words(before.claim) != _words(claim):
            self.tell()

    async def ask(self, *, deep: bool = False) -> None:
        """Look at it. ServerDown: no usable answer came in time."""
        assert self.session is not None
        limit = min(LOOK_LIMIT, self.backend.declared.timeout * 0.8)
        self.looked = boot_now()
        try:
            async with asyncio.timeout(limit):
                await self.session.look(deep=deep)
        except TimeoutError as error:
            cause = f"no answer within {round(limit, 1):g} s"
            raise ServerDown(f"look at {self.remote}", "timeout", cause) from error
        finally:
            self.note()

    async def call(self, do: str, args: Answer | None = None, *, timeout: float = 10.0) -> Answer:
        call = partial(self._call, do, args or {}, timeout)
        return await self.backend.circuit.act(self.id, do, call)

    async def close(self) -> None:
        self.listener = None

    async def _call(self, do: str, args: Answer, timeout: float) -> Answer:
        backend, limit, what = self.backend, timeout + self.backend.slack, f"{do} {self.id}"
        here = backend.api is not None and backend.seats.get(self.id) is self
        if self.session is None or not here:
            raise LinkError(f"cannot {what}: its server is not watched", code="gone")
        if not backend.claim.up:  # no session waits for its silence
            raise ServerDown(what, backend.claim.reason, backend.sentence, reached=False)
        try:
            async with asyncio.timeout(limit):
                return await self._act(self.session, do, args)
        except TimeoutError as error:
            raise ServerDown(what, "timeout", f"no answer in {limit:g} s") from error
        except ServerDown:
            backend.check_soon.set()
            raise
        except WaError:
            raise
        except Exception as error:
            # Else the pass would end before it judges, and the last good verdict would stand.
            log.exception("cannot %s: a fault of the agent", what)
            cause = type(error).__name__
            raise EngineError(f"cannot {what}: {cause}", code="internal") from error

    async def _act(self, session: ServerSession, do: str, args: Answer) -> Answer:
        if do == "probe":
            # Where its turn in this round has not come, the last look tells, or probes of a
            # thousand would wait for turns until all are too late.
            if (deep := args.get("deep") is True) or not self.waits:
                await self.ask(deep=deep)
            if (claim := self.last_words()) is None:
                cause = "others are looked at first"
                raise ServerDown(f"look at {self.remote}", "timeout", cause, reached=False)
            return {"claim": claim}
        try:
            match do:
                case "qr":
                    code = await session.qr()
                    return {"qr": None if code is None else asdict(code)}
                case "command":
                    name, arguments = str(args.get("name", "")), args.get("arguments", {})
                    return await session.command(name, arguments)
                case "renew":
                    await session.renew(confirmed=args.get("confirmed") is True)
                case "regenerate_keys":
                    await session.new_keys([str(peer) for peer in args.get("peers", ())])
                case "connect" | "disconnect" | "restart" | "logout":
                    await getattr(session, do)()
                case _:
                    raise InvalidRequest(f"cannot {do}: no such call", field="do")
            return {}
        finally:
            self.note()
            self.looked = 0.0
            self.backend.look_soon.set()


def _words(claim: Claim) -> tuple[Claim, bool]:
    """All of a claim but its ages, and whether it has a proof."""
    return replace(claim, proof_age=None, still_for=0.0), claim.proof_age is None
