"""One declared backend: the task of its server, its circuit breaker, its outages, and its sessions'
seats.

The task reads the server's list, looks at the sessions that are not known to be well, and keeps
what the server said of each with the time of its proof. What the server does wrong stays its own:
each request has a deadline, and no session waits for another. The server's own words are in
evolution.py and whaticket/api.py.

During an outage its sessions wait (`backend_down`); when it is over, the agent checks them one
after another. A session reads and acts through its seat, as through a link to a worker, and each of
its calls through the circuit breaker.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from agent import errors, log
from agent.backends.http import ServerDown
from agent.clock import boot_now
from agent.config.config import BackendDeclaration, with_secrets
from agent.core import model, reconnect
from agent.core.breaker import Breaker, BreakerState
from agent.core.session import Session
from agent.core.words import Address, Claim, Happening, InstanceId, RemoteSession, ServerClaim
from agent.engines.tasks import Tasks, until_set
from agent.link import client, wire

if TYPE_CHECKING:
    from agent.backends import evolution
    from agent.backends.declared import Backends
    from agent.backends.whaticket import api as whaticket

LOOK_LIMIT = 8.0
"""Seconds for one look, or 0.8 of a request's time if that is less."""
MOST_UNHEARD = 100
"""Happenings of one session that no pass listens to yet."""

Answer = Mapping[str, Any]
Look: TypeAlias = Callable[[Address, float], Awaitable[str]]
"""Looks at an address for at most these seconds: why it does not answer; "" = it does."""
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
    """The backend, which hears when the circuit opens, closes, or lets one session try."""
    breaker: Breaker = field(default_factory=Breaker)
    trial: InstanceId | None = None
    """The session whose call is the trial of a half-open circuit."""

    @property
    def state(self) -> BreakerState:
        state = self.breaker.state(boot_now(), self.backend.shared.breaker())
        return BreakerState.HALF_OPEN if self.trial is not None else state

    @property
    def sentence(self) -> str:
        """Why the agent tries none of the backend's sessions; "" while the circuit is closed."""
        state, failures = self.state, self.breaker.failures
        if state is BreakerState.CLOSED:
            return ""
        if state is BreakerState.HALF_OPEN:
            return f"its circuit is half open after {failures} failures: one session tries"
        left = self.breaker.trial_in(boot_now(), self.backend.shared.breaker())
        return f"its circuit is open for at most {left:.0f} s more after {failures} failures"

    def lets(self, id: InstanceId) -> bool:
        """True if this session may wait for its turn, or has it."""
        return self.breaker.may_try(boot_now(), self.backend.shared.breaker()) or id == self.trial

    def begin(self, id: InstanceId) -> bool:
        """True if this session may act now; the first one while half open is the trial."""
        lets = self.lets(id)
        if lets and id != self.trial and self.state is BreakerState.HALF_OPEN:
            self.trial, self.breaker = id, replace(self.breaker, trial_at=boot_now())
        return lets

    def checked(self, seconds: float) -> None:
        """Note that the list came after `seconds`: a quick one ends the pause."""
        now, pause = boot_now(), self.backend.shared.breaker().pause
        may_end = seconds <= QUICK and now - (self.breaker.opened_at or now) >= CALM
        if may_end and self.state is BreakerState.OPEN:
            self.breaker = replace(self.breaker, opened_at=now - pause)
            self.backend.circuit_changed(BreakerState.HALF_OPEN)

    async def act(self, id: InstanceId, do: str, call: Call) -> Answer:
        """Call the server for a session if the circuit allows it, and count how it answered."""
        if do in ACTS and not self.begin(id):
            raise errors.EngineError(f"cannot {do} {id}: {self.sentence}", code="circuit_open")
        try:
            answer = await call()
            if do in ACTS or id == self.trial:
                self.close()
            return answer
        except ServerDown as down:
            if do in ACTS and down.reached:
                was, rules = self.state, self.backend.shared.breaker()
                self.breaker, self.trial = self.breaker.after_failure(boot_now(), rules), None
                if was is BreakerState.CLOSED and self.state is not BreakerState.CLOSED:
                    self.backend.circuit_changed(BreakerState.OPEN)
            raise
        finally:
            if id == self.trial:  # cancelled, or refused by the session: another one may try
                self.trial, self.breaker = None, replace(self.breaker, trial_at=None)

    def close(self) -> None:
        was, self.breaker = self.state, Breaker()
        self.trial = None
        if was is not BreakerState.CLOSED:
            self.backend.circuit_changed(BreakerState.CLOSED)


@dataclass(slots=True, eq=False, repr=False)
class Seat:
    """One session's share of its server's task: to a pass the same as the link to a worker."""

    backend: "Backend"
    id: InstanceId
    run: str
    session: "ServerSession | None" = None
    """The server's session; None: it is not held yet."""
    remote: str = ""
    """The server's name of the session."""
    listener: client.Listener | None = None
    unheard: deque[Happening] = field(default_factory=partial(deque, maxlen=MOST_UNHEARD))
    """Happenings that logs told since the agent's start, before a pass listened."""
    fact: model.ClaimFact | None = None
    looked: float = 0.0
    look: "asyncio.Task[None] | None" = None
    waits: bool = False
    """True if the seat's look has had no turn yet."""
    look_took: float = 0.0
    proof_took: float = 0.0
    """Seconds of its last look, at most `LOOK_LIMIT`, and of WhatsApp's last answer through it."""

    @property
    def hello(self) -> wire.Hello:
        return wire.Hello(self.id, self.run, self.backend.declared.engine, 0)

    @property
    def slack(self) -> float:
        """Seconds to add to a limit that a quick session of a quick server would keep."""
        return self.backend.slack + 3 * self.look_took + 2 * self.proof_took

    def happened(self, what: Happening) -> None:
        if self.listener is not None:
            self.listener.on_happening(self.run, what)
        else:
            self.unheard.append(what)

    def last_words(self) -> Claim | None:
        """Return the last claim, with the proof aged by the time since."""
        if self.fact is None:
            return None
        at = self.fact.proved_at()
        return replace(self.fact.claim, proof_age=None if at is None else boot_now() - at)

    def tell(self) -> None:
        if self.listener is not None and (claim := self.last_words()) is not None:
            self.listener.on_claim(self.run, claim)

    def note(self) -> None:
        """Keep the server's words on the session; the listener hears new ones and a first proof."""
        if self.session is None or (claim := self.session.known.claim()) is None:
            return
        now, before = boot_now(), self.fact
        self.fact = model.ClaimFact(claim, at=now, since=now)
        if before is None or _without_ages(before.claim) != _without_ages(claim):
            self.tell()

    async def ask(self, *, deep: bool = False) -> None:
        """Look at the session. ServerDown: no usable answer came in time."""
        assert self.session is not None
        limit = min(LOOK_LIMIT, self.backend.declared.timeout * 0.8) + self.slack
        self.looked = boot_now()
        try:
            async with asyncio.timeout(limit):
                await self.session.look(deep=deep)
        except TimeoutError as error:
            cause = f"no answer within {round(limit, 1):g} s"
            raise ServerDown(f"look at {self.remote}", "timeout", cause) from error
        finally:
            self.look_took = min(boot_now() - self.looked, LOOK_LIMIT)
            self.note()

    async def call(self, do: str, args: Answer | None = None, *, timeout: float = 10.0) -> Answer:
        call = partial(self._call, do, args or {}, timeout)
        return await self.backend.circuit.act(self.id, do, call)

    async def close(self) -> None:
        self.listener = None

    async def _call(self, do: str, args: Answer, timeout: float) -> Answer:
        backend, limit, what = self.backend, timeout + self.slack, f"{do} {self.id}"
        here = backend.api is not None and backend.seats.get(self.id) is self
        if self.session is None or not here:
            raise errors.LinkError(f"cannot {what}: its server is not watched", code="gone")
        if not backend.claim.up:  # no session waits for its silence
            raise ServerDown(what, backend.claim.reason, backend.sentence, reached=False)
        try:
            async with asyncio.timeout(limit):
                return await self._act(self.session, do, args)
        except TimeoutError as error:
            raise ServerDown(what, "timeout", f"no answer in {limit:g} s") from error
        except errors.WaError as error:
            if isinstance(error, ServerDown):
                backend.check_soon.set()
            raise
        except Exception as error:
            # Else the pass would end before it judges, and the last good verdict would stand.
            log.exception("cannot %s: a fault of the agent", what)
            cause = type(error).__name__
            raise errors.EngineError(f"cannot {what}: {cause}", code="internal") from error

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
            if args.get("confirmed") is False:  # a repair would end its pairing
                await session.must_hang()
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
                    raise errors.InvalidRequest(f"cannot {do}: no such call", field="do")
            return {}
        finally:
            self.note()
            self.looked = 0.0
            self.backend.look_soon.set()


def _without_ages(claim: Claim) -> tuple[Claim, bool]:
    """Return a claim without its ages; True if it has no proof."""
    return replace(claim, proof_age=None, still_for=0.0), claim.proof_age is None


EVERY = 5.0
"""Seconds between two rounds of looks, between two lists of a server that is down, and until files
that cannot be read, and a task that ended by a fault, are tried again."""
SOON = 1.0
"""Seconds between two lists if a failed request asks for one."""
LOOKS = 60
"""The most looks at once, so that an outage of a thousand sessions leaves the loop to others."""
TAKE_OVER = 3.0
"""Seconds that a start waits for the first answer of servers."""
PATIENCE = 10.0
"""Seconds that a backend may be away before its sessions wait for it."""
STEADY, PROBATION = 60.0, 20.0
"""Seconds. A server that goes away within `STEADY` of its return counts as up again once its checks
were good for `PROBATION`; else each return would begin a look at all of its sessions."""
BACK_RATE = 50.0
"""Sessions per second that the agent checks after a backend returns."""
FIRST_LOOK, RESTART_TIMEOUT = 15.0, 120.0
"""Seconds; a server may take long to make a session, or to have it connected again."""
STEPS = 8
"""The most requests, one after another, that a look at a session or its code takes."""
MOST_SLACK = 120.0
NOT_CHECKED = ServerClaim(False, "not_checked", "the agent has not checked its server yet")


def crashed(error: BaseException) -> None:
    log.error("a task of a backend failed: a fault of the agent", exc_info=error)


@dataclass(slots=True, eq=False, repr=False)
class Backend:
    """The task of one server. Times are boot times unless the name says `wall`."""

    declared: BackendDeclaration
    name: InstanceId
    """Name of the backend, by the same rule as of instances."""
    shared: "Backends"
    circuit: Circuit = field(init=False)
    seats: dict[InstanceId, Seat] = field(default_factory=dict)
    api: "ServerApi | None" = None
    """The server's calls; None: the server is not asked."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first check has ended, or the server cannot be asked."""
    check_soon: asyncio.Event = field(default_factory=asyncio.Event)
    look_soon: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float = 0.0
    next_check: float | None = None
    claim: ServerClaim = NOT_CHECKED
    """The outcome of the last request for the list, or why the server is not asked."""
    sessions: tuple[RemoteSession, ...] = ()
    checked_at: float = float("-inf")
    good_since: float = float("-inf")
    """Boot time of the first good check in a row; inf: the last one was not good."""
    flaps: bool = False
    """True if the server last went away within `STEADY` seconds of its return."""
    down: bool = True
    """True while the server is away for longer than a blink, and until it was seen up: its
    sessions wait."""
    since_wall: float = field(default_factory=time.time)
    """Unix time at which the server was first found away, or up again."""
    away_since: float | None = None
    """Boot time at which the server was first found away; None = it is up."""
    left: dict[InstanceId, str] = field(default_factory=dict)
    """Session that was or should be watched → why it has no seat; "" = as it was wanted."""
    away: set[InstanceId] = field(default_factory=set)
    """The sessions that have not come back since the server is up again."""
    _turns: asyncio.Semaphore = field(init=False)
    _tasks: Tasks = field(default_factory=partial(Tasks, crashed))
    """The looks and the check that are under way."""
    _checking: "asyncio.Task[None] | None" = None
    _cause: str = ""
    """Reason for which the server is down, as the journal has it; "" = no entry said so."""

    def __post_init__(self) -> None:
        self.circuit, self._turns = Circuit(self), asyncio.Semaphore(LOOKS)

    @property
    def sentence(self) -> str:
        """Why the server is not well, for people."""
        parts = (self.circuit.sentence if self.claim.up else "", self.claim.sentence)
        return "; ".join(filter(None, parts))

    @property
    def slack(self) -> float:
        """Seconds to add to a limit that a quick server would keep."""
        return min(STEPS * self.claim.seconds, MOST_SLACK)

    @property
    def members(self) -> dict[InstanceId, Session]:
        every = self.shared.instances.items()
        return {id: session for id, session in every if session.instance.backend == self.name}

    @property
    def twins(self) -> list["Backend"]:
        """All backends that are declared for this server: with other keys, or other sessions."""
        return [it for it in self.shared.all.values() if it.declared.url == self.declared.url]

    # the task

    async def run(self) -> None:
        """Watch the server, judge its outages and adopt its sessions, until cancelled."""
        while True:
            try:
                await self._watch(await asyncio.to_thread(with_secrets, self.declared))
                continue  # with another key
            except errors.ConfigError as error:
                words = f"{error}; the agent reads it again every {EVERY:g} s"
                if self.claim.sentence != words:
                    log.error("cannot use backend %s: %s; all else goes on", self.name, error)
                self.claim = ServerClaim(False, "not_checked", words)
                self.known.set()
                self.judge()
            except Exception:
                log.exception("the task of backend %s ended: a fault of the agent", self.name)
            await asyncio.sleep(EVERY)

    async def _watch(self, declared: BackendDeclaration) -> None:
        """Until another key is read. `declared`: with its key. ConfigError: a file that it names
        cannot be used."""
        self.api = api = self._open(declared)
        self.claim, self.started_at = NOT_CHECKED, boot_now()
        try:
            for id in [it for it in self.seats if it in self.shared.instances]:
                try:
                    await self.take(id)
                except errors.WaError as error:
                    log.warning("%s", error)
                    self.leave(id, str(error))
            async with asyncio.TaskGroup() as group:
                looks = group.create_task(self._look_around(), name=f"looks at {self.name}")
                await self._read_lists(api, declared)
                looks.cancel()
        finally:
            await self._tasks.cancel()
            self.api = self.next_check = None
            self.claim, self.sessions = NOT_CHECKED, ()
            await api.close()
            for id, seat in list(self.seats.items()):
                self.seats[id] = Seat(self, id, seat.run, unheard=seat.unheard)
                if seat.listener is not None:
                    seat.listener.on_close("the watch of its server begins again")

    def _open(self, declared: BackendDeclaration) -> ServerApi:
        folder = self.shared.root / self.name
        if declared.engine == "evolution":
            from agent.backends.evolution import Evolution

            return Evolution(declared, folder)
        from agent.backends.whaticket.api import Whaticket

        return Whaticket(declared, folder, self.shared.crypto_patterns)

    async def check(self) -> ServerClaim:
        """Read the list now; callers at the same time share one request."""
        if self.api is not None:
            if self._checking is None or self._checking.done():
                self._checking = self._tasks.start(self._check(self.api), f"list of {self.name}")
            await asyncio.wait([self._checking])  # its end by the task is not that of its callers
        return self.claim

    async def _read_lists(self, api: ServerApi, declared: BackendDeclaration) -> None:
        """Read lists until the server refuses the key and another one is in its file."""
        while True:
            begun = boot_now()
            self.check_soon.clear()
            await self.check()
            try:
                await self.shared.discover(self)
            except errors.WaError as error:
                log.error("cannot adopt sessions of backend %s: %s", self.name, error)
            self.next_check = begun + (api.list_every if self.claim.up else EVERY)
            if self.claim.reason == "refused_key":
                with suppress(errors.ConfigError):
                    if await asyncio.to_thread(with_secrets, self.declared) != declared:
                        return
            await asyncio.sleep(SOON)
            await until_set(self.check_soon, max(self.next_check - boot_now(), 0.0))

    async def _check(self, api: ServerApi) -> None:
        try:
            claim, self.sessions = await api.sessions()
            self.circuit.checked(claim.seconds)
        except ServerDown as down:
            api.away()
            claim = ServerClaim(False, down.reason, str(down))
        except errors.EngineError as error:  # only its list does not come
            claim = ServerClaim(True, error.code, str(error), sessions=self.claim.sessions)
        except Exception:
            log.exception("cannot read the list of %s: a fault of the agent", self.name)
            claim = ServerClaim(False, "garbage", "its list cannot be read")
        self.checked(claim)
        for seat in list(self.seats.values()) if claim.up else ():
            seat.note()  # a list tells of pairings and ends
            await asyncio.sleep(0)

    def checked(self, claim: ServerClaim) -> None:
        was_up, self.checked_at = self.claim.up, (now := boot_now())
        if was_up and not claim.up:
            self.flaps = now - self.good_since < STEADY
        self.good_since = min(self.good_since, now) if claim.up else float("inf")
        if claim.up and self.flaps and now - self.good_since < PROBATION:
            words = f"it comes and goes: it must answer for {PROBATION:g} s to count as up"
            claim = ServerClaim(False, self.claim.reason, words)
        self.claim = claim
        self.known.set()
        self.judge()
        if claim.up and not was_up:
            for seat in self.seats.values():
                seat.looked = 0.0
            self.look_soon.set()

    async def _look_around(self) -> None:
        """Rounds of looks, each in a task of its own: one that hangs delays no other. A round that
        begins early has only the sessions that were just held or acted on."""
        next_round = boot_now()
        while True:
            self.look_soon.clear()
            early = boot_now() < next_round
            if not early:
                next_round = boot_now() + EVERY
            if self.claim.up:
                seats = [it for it in self.seats.values() if it.session and it.session.known.is_due]
                for seat in sorted(seats, key=lambda seat: seat.looked):
                    if seat.look is None and not (early and seat.looked):
                        seat.waits = True
                        seat.look = self._tasks.start(self._look(seat), f"look at {seat.id}")
            await until_set(self.look_soon, max(next_round - boot_now(), 0.0))

    async def _look(self, seat: Seat) -> None:
        try:
            async with self._turns:
                seat.waits = False
                if self.claim.up:
                    await seat.ask()
        except errors.EngineError as error:
            if isinstance(error, ServerDown):
                self.check_soon.set()
            log.debug("%s: %s", self.name, error)
        finally:
            seat.waits, seat.look = False, None

    # its sessions

    def unit(self, id: InstanceId) -> model.UnitStatus:
        if (seat := self.seats.get(id)) is None:
            return replace(model.UNIT_ABSENT, status_text=self.left.get(id, ""))
        return model.UnitStatus(model.UnitState.ACTIVE, run=seat.run, since=self.started_at)

    async def start(self, id: InstanceId) -> bool:
        """Watch a session. False: that costs no login, for the server has it connected already."""
        new, own = id not in self.seats, self.shared.instances[id]
        try:
            seat = await self.take(id)
            claim = (await seat.call("probe", timeout=FIRST_LOOK))["claim"]
            adopted = own.instance.adopted
            if logs_in := reconnect.needs_connect(claim, paired=own.record.paired, adopted=adopted):
                await seat.call("connect", timeout=RESTART_TIMEOUT)
            return logs_in
        except BaseException as error:
            if isinstance(error, errors.EngineError) and error.code == "zombie":
                return True  # one that hangs is watched, and a repair restarts it
            if new:  # the start is tried again as a whole
                self.leave(id, str(error))
            raise

    async def restart(self, id: InstanceId) -> None:
        await (await self.take(id)).call("restart", timeout=RESTART_TIMEOUT)

    async def take(self, id: InstanceId) -> Seat:
        if self.api is None:
            raise errors.HostError(f"cannot watch {id} on {self.name}: {self.sentence}")
        # The start before may have had too little time.
        took = LOOK_LIMIT if self.left.get(id) else 0.0
        seat = self.seats.setdefault(id, Seat(self, id, secrets.token_hex(8), look_took=took))
        remote = self.shared.instances[id].instance.remote or id
        if seat.session is not None and seat.remote == remote:
            return seat
        for other in (it for twin in self.twins for it in twin.seats.values()):
            if other is not seat and other.remote == remote:
                words = f"cannot watch {remote!r:.80} as {id}: {other.id} watches it"
                raise errors.Refused(words, code="remote_taken")
        seat.remote = remote
        seat.session = await self.api.hold(seat)
        self.look_soon.set()
        return seat

    def leave(self, id: InstanceId, why: str = "") -> None:
        """Watch a session no more; it stays as it is on the server. `why`: its start failed."""
        self.left[id] = why
        seat = self.seats.pop(id, None)
        if seat is not None and seat.remote and self.api is not None:
            if seat.look is not None:
                seat.look.cancel()
            self.api.held.pop(seat.remote, None)

    def attach(self, id: InstanceId, listener: client.Listener) -> Seat:
        """Return the seat. `listener` gets the last claim at once, and what happened before."""
        seat = self.seats.get(id)
        if self.api is None or seat is None:
            raise errors.LinkError(f"cannot reach {id}: its server is not watched", code="gone")
        seat.listener = listener
        seat.tell()
        while seat.unheard:
            listener.on_happening(seat.run, seat.unheard.popleft())
        return seat

    # outages

    def judge(self) -> None:
        """Tell the sessions when the server is away, when that lasts, and when it is back."""
        if self.claim.up:
            if not self.down and self.away_since is None:
                return
            outage, back = self.down, list(self.members)
            self.down, self.away_since, self.since_wall = False, None, time.time()
            if outage and not self._cause:  # the first check since the agent's start
                self._wake(back)
                return
            if outage:
                self._cause, self.away = "", set(back)
                self.say("backend_up", f"it is up; the agent checks {len(back)} sessions in turn")
            # Also after a blink: only probes show which sessions it hit.
            self.shared.tasks.start(self._bring_back(back, outage), f"bring back {self.name}")
            return
        if self.away_since is None:
            self.away_since, self.since_wall = boot_now(), time.time()
            self._wake(self.members)  # nothing measures them now
        if not self.down and boot_now() - self.away_since >= PATIENCE:
            self.down = True
            self._wake(self.members)
        if self.down and self.claim.reason != self._cause:
            self._cause, waiting = self.claim.reason, len(self.members)
            words = f"it is down: {self.sentence}; {waiting} sessions wait for it"
            self.say("backend_down", words, bad=True)

    def _wake(self, ids: Collection[InstanceId]) -> None:
        for id in ids:
            self.shared.wake(id)

    async def _bring_back(self, ids: Sequence[InstanceId], outage: bool) -> None:
        for id in ids:
            if self.down:
                return  # the next return begins again
            self.away.discard(id)
            self.shared.look_again(id, outage)
            await asyncio.sleep(1.0 / BACK_RATE)

    # log and journal

    def say(self, kind: str, sentence: str, *, bad: bool = False) -> None:
        sentence = f"backend {self.name}: {sentence}"
        (log.warning if bad else log.info)("%s", sentence)
        detail = {"backend": self.name}
        entry = model.JournalEntry(kind, sentence, model.Category.HEALTH, None, time.time(), detail)
        self.shared.note(entry)

    def circuit_changed(self, state: BreakerState) -> None:
        """Note the circuit's state before the sessions hear of it."""
        if state is BreakerState.OPEN:
            self.say("circuit_open", f"{self.circuit.sentence}: its sessions wait", bad=True)
        elif state is BreakerState.CLOSED:
            self.say("circuit_closed", "its circuit is closed again")
        self._wake(self.members)
