"""One declared backend: the task of its server, its outages, and its sessions' seats.

The task reads the server's list, looks at the sessions that are not known to be well, and keeps
what the server said of each with the time of its proof. What the server does wrong stays its own:
each request has a deadline, and no session waits for another.

During an outage its sessions wait (`backend_down`); when it is over, the agent checks them one
after another. A session reads and acts through its seat, as through a link to a worker.
"""

import asyncio
import logging
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.backends.circuit import Circuit
from agent.backends.http import ServerDown
from agent.backends.seat import MOST_UNHEARD, Seat
from agent.backends.server import ServerApi
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration, with_secrets
from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.crypto_patterns import CryptoPattern
from agent.core.model import (
    UNIT_ABSENT,
    Category,
    Happening,
    Instance,
    InstanceId,
    JournalEntry,
    RemoteSession,
    ServerClaim,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reconnect import needs_connect
from agent.core.session import Session
from agent.core.words import is_adopted
from agent.engines.tasks import Tasks
from agent.errors import (
    ConfigError,
    EngineError,
    HostError,
    LinkError,
    Refused,
    WaError,
)
from agent.link.client import Listener
from agent.store.database import Store

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two rounds of looks, between two lists of a server that is down, and until files
that cannot be read, and a task that ended by a fault, are tried again."""
SOON = 1.0
"""Seconds between two lists where a failed request asks for one."""
LOOKS = 30
"""The most looks at once, so that an outage of a thousand sessions leaves the loop to others."""
_NOTED_AT_ONCE = 50
"""Claims, between which other tasks have their turn."""
LOOK_EVERY = 30.0
TAKE_OVER = 3.0
"""Seconds that a start waits for the first answer of servers."""
PATIENCE = 10.0
"""Seconds that a backend may be away before its sessions wait for it."""
BACK_RATE = 50.0
"""Sessions per second that the agent checks after a backend returns."""
FIRST_LOOK, RESTART_TIMEOUT = 15.0, 120.0
"""Seconds; a server may take long to make a session, or to have it connected again."""
STEPS = 8
"""The most requests, one after another, that a look at a session or its code takes."""
MOST_SLACK = 120.0
_COUNTS = re.compile(r"[0-9]+")


class Member(Protocol):
    """A session on a backend, as supervision keeps it."""

    instance: Instance
    record: SessionRecord


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Shared:
    """What all backends use."""

    root: Path
    """A folder for each backend is in it, for what its kind keeps."""
    instances: Mapping[InstanceId, Member]
    store: Store
    wake: Callable[[InstanceId], None]
    """Begin a pass of that session."""
    look_again: Callable[[InstanceId, bool], None]
    """Its server is back. True: after an outage, from before which no claim proves anything."""
    note: Callable[[JournalEntry], object]
    breaker: Callable[[], BreakerPolicy]
    create: Callable[[Instance], Coroutine[Any, Any, Session]] = field(init=False)
    crypto_patterns: Sequence[CryptoPattern] = ()
    tasks: Tasks = field(default_factory=lambda: Tasks(_crashed))
    discover: "Callable[[Backend], Awaitable[None]]" = field(init=False)
    """Make instances of its server's new sessions that match `adopt`."""


def _crashed(error: BaseException) -> None:
    log.error("a task of a backend failed: a fault of the agent", exc_info=error)


@dataclass(slots=True, eq=False, repr=False)
class Backend:
    """Times are of the boot clock unless the name says `wall`."""

    declared: BackendDeclaration
    name: InstanceId
    """Named by the same rule as instances."""
    shared: Shared
    circuit: Circuit = field(init=False)
    seats: dict[InstanceId, Seat] = field(default_factory=dict)
    """Of the sessions that are watched."""
    unread: str = ""
    """Why a file that it names (key, password, certificates) cannot be used: its server is not
    asked."""
    secret: BackendDeclaration | None = None
    """The declaration with its key, as last read."""
    api: ServerApi | None = None
    """None: its server is not asked."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """For its task: its server is up or away, its list or its key is another."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Its first check has ended, or its server cannot be asked."""
    check_soon: asyncio.Event = field(default_factory=asyncio.Event)
    look_soon: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float = 0.0
    next_check: float | None = None
    """When the list is read again."""
    claim: ServerClaim | None = None
    """What the last request for its list told; None: none yet since its task began."""
    sessions: tuple[RemoteSession, ...] = ()
    """The last list."""
    checked_at: float = float("-inf")
    checked_wall: float | None = None
    version: str = ""
    """The last that it told of itself."""
    down: bool = True
    """It is away for longer than a blink: its sessions wait. True until it was seen up."""
    since_wall: float = field(default_factory=time.time)
    """When `down` last changed."""
    away_since: float | None = None
    """When it was first found away; None = it is up."""
    away: set[InstanceId] = field(default_factory=set)
    """The sessions that have not come back since it is up again."""
    asking: set[InstanceId] = field(default_factory=set)
    """Sessions that want to try, and wait for a good check."""
    waiting: set[Seat] = field(default_factory=set)
    """The seats of this round that are not looked at yet."""
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS))
    _looks: "dict[Seat, asyncio.Task[None]]" = field(default_factory=dict)
    _tasks: Tasks = field(default_factory=lambda: Tasks(_crashed))
    """The looks and the check that are under way."""
    _checking: "asyncio.Task[None] | None" = None
    _slow: deque[float] = field(default_factory=lambda: deque(maxlen=12))
    """The seconds that its last answers took."""
    _cause: str = ""
    _warned: str = ""
    """The reason for which it is away and its last warning, as the journal has them."""

    def __post_init__(self) -> None:
        self.circuit = Circuit(self.shared.breaker, self._circuit_changed)

    @property
    def up(self) -> bool:
        return self.claim is not None and self.claim.up

    @property
    def unchecked(self) -> bool:
        """Nothing is known of it since the agent's start."""
        return self.checked_wall is None and not self.unread

    @property
    def reason(self) -> str:
        """Why it is away, as a code; "" = it is up."""
        return "" if self.up else (self.claim.reason if self.claim else "not_checked")

    @property
    def sentence(self) -> str:
        """Why it is not well, for people."""
        if self.unread:
            return f"{self.unread}; the agent reads it again every {EVERY:g} s"
        if self.claim is None:
            return "the agent has not checked its server yet"
        if not self.claim.up:
            return self.claim.sentence
        return "; ".join(filter(None, (self.circuit.sentence, self.warning)))

    @property
    def warning(self) -> str:
        """What is odd while its server is up (a log that it cannot read, errors that name no
        session); "" = nothing."""
        return self.claim.sentence if self.claim is not None and self.claim.up else ""

    @property
    def slack(self) -> float:
        """Seconds to add to a limit that a quick server would keep."""
        return min(STEPS * max(self._slow, default=0.0), MOST_SLACK)

    @property
    def members(self) -> dict[InstanceId, Member]:
        every = self.shared.instances.items()
        return {id: its for id, its in every if its.instance.backend == self.name}

    # the task

    async def run(self) -> None:
        """Watch its server, judge its outages and adopt its sessions, until cancelled."""
        while True:
            try:
                if self.secret is None:
                    self.secret = await asyncio.to_thread(with_secrets, self.declared)
                await self._watch(self.secret)
                continue  # with another key
            except ConfigError as error:
                if self.unread != str(error):
                    log.error("cannot use backend %s: %s; all else goes on", self.name, error)
                self.unread = str(error)
                self.known.set()
                self.judge()
            except Exception:
                log.exception("the task of backend %s ended: a fault of the agent", self.name)
            self.news.clear()
            await _until_set(self.news, EVERY)

    async def read_key_again(self) -> bool:
        """After a change of the files that hold its key or password: whether the server is asked
        with others from now on. ConfigError: they cannot be read."""
        secret = await asyncio.to_thread(with_secrets, self.declared)
        if new := secret != self.secret:
            self.secret = secret
            self.news.set()
        return new

    async def _watch(self, declared: BackendDeclaration) -> None:
        """Until another key is read. `declared`: with its key. ConfigError: a file that it names
        cannot be used."""
        self.api = api = self._open(declared)
        self.unread, self.started_at = "", boot_now()
        try:
            for seat in [it for id, it in self.seats.items() if id in self.shared.instances]:
                try:
                    await self._hold(seat)
                except WaError as error:
                    log.warning("%s", error)
                    self.leave(seat.id)
            async with asyncio.TaskGroup() as group:
                lists = group.create_task(self._read_lists(api), name=f"lists of {self.name}")
                looks = group.create_task(self._look_around(), name=f"looks at {self.name}")
                while self.secret is declared:
                    self.news.clear()
                    self.judge()
                    try:
                        await self.shared.discover(self)
                    except WaError as error:
                        log.error("cannot adopt sessions of backend %s: %s", self.name, error)
                    again = boot_now() + LOOK_EVERY
                    if self.away_since and not self.down:
                        again = min(again, self.away_since + PATIENCE)
                    await _until_set(self.news, max(again - boot_now(), 0.0))
                lists.cancel()
                looks.cancel()
        finally:
            await self._tasks.cancel()
            self._looks.clear()
            self.waiting.clear()
            self.api = self.claim = self.next_check = None
            self.sessions = ()
            await api.close()
            for id, seat in list(self.seats.items()):
                self.seats[id] = Seat(self, id, seat.run, unheard=seat.unheard)
                if seat.listener is not None:
                    seat.listener.on_close("the watch of its server begins again")

    def _open(self, declared: BackendDeclaration) -> ServerApi:
        def happened(remote: str, what: Happening) -> None:
            if (seat := self._seat_of(remote)) is not None:
                seat.happened(what)

        folder = self.shared.root / self.name
        if declared.engine == "evolution":
            from agent.backends.evolution import Evolution

            return Evolution(declared, folder)
        from agent.backends.whaticket.api import Whaticket

        return Whaticket(declared, folder, happened, patterns=self.shared.crypto_patterns)

    async def check(self) -> ServerClaim:
        """Read the list now; callers at the same time share one request."""
        if self.api is not None:
            if self._checking is None or self._checking.done():
                check = self._check(self.api)
                self._checking = self._tasks.start(check, f"list of {self.name}")
            await asyncio.wait([self._checking])  # its end by the task is not that of its callers
        return self.claim or ServerClaim(False, "not_checked", "its watch begins again")

    async def _read_lists(self, api: ServerApi) -> None:
        while True:
            begun = boot_now()
            self.check_soon.clear()
            await self.check()
            self.next_check = begun + (api.list_every if self.up else EVERY)
            await _until_set(self.check_soon, max(self.next_check - boot_now(), SOON))
            await asyncio.sleep(max(begun + SOON - boot_now(), 0.0))

    async def _check(self, api: ServerApi) -> None:
        count = len(self.sessions) if self.claim is not None else None
        try:
            listed = await api.sessions()
        except ServerDown as down:
            api.away()
            self.checked(ServerClaim(False, down.reason, str(down)))
            return
        except EngineError as error:
            self.checked(ServerClaim(True, "", str(error), sessions=count))
            return
        except Exception:
            log.exception("cannot read the list of %s: a fault of the agent", self.name)
            self.checked(ServerClaim(False, "garbage", "its list cannot be read"))
            return
        new, self.sessions = listed.sessions != self.sessions, listed.sessions
        claim = ServerClaim(
            *(True, listed.reason, listed.warning, api.version, listed.seconds),
            sessions=len(listed.sessions),
        )
        self.checked(claim, listed=new)
        for number, seat in enumerate(list(self.seats.values())):
            if seat.fact is not None:  # a list tells of pairings and ends
                seat.note()
            if number % _NOTED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def checked(self, claim: ServerClaim, *, listed: bool = False) -> None:
        """The list was read, or was not; `listed`: it is another one."""
        before, self.claim = self.claim, claim
        news = before is None or _state(before) != _state(claim)
        if news and claim.up:
            for seat in self.seats.values():
                seat.looked = 0.0
            self.look_soon.set()
        if self.checked_wall is None and claim.up and boot_now() - self.started_at < TAKE_OVER:
            self.down = False  # the sessions of a server that is well never count as away
            self._wake(self.members)
        self.known.set()
        if claim.up:
            self._slow.append(claim.seconds)
        self.checked_at, self.checked_wall = boot_now(), time.time()
        self.version = claim.version or self.version
        self._note_warning()
        if claim.up or self.down:  # before, it may be a blink
            self._note_cause()
        self.circuit.checked(up=claim.up, seconds=claim.seconds)
        if news or listed:  # new sessions may match `adopt`
            self.news.set()
        if claim.up and not self.down:  # after an outage they are woken in turn
            asking, self.asking = self.asking, set()
            self._wake(asking)

    async def _look_around(self) -> None:
        """Rounds of looks, each in a task of its own: one that hangs delays no other. A round that
        begins early has only the sessions that were just held or acted on."""
        next_round = boot_now()
        while True:
            self.look_soon.clear()
            early = boot_now() < next_round
            next_round = next_round if early else boot_now() + EVERY
            if self.up:
                every = self.seats.values()
                seats = [it for it in every if it.session is not None and it.session.is_due]
                # Those without a proof first: the others are looked at as they opened lately.
                for seat in sorted(seats, key=lambda it: (it.is_proved, it.looked)):
                    if seat not in self._looks and not (early and seat.looked):
                        self.waiting.add(seat)
                        self._looks[seat] = self._tasks.start(
                            self._look(seat), f"look at {seat.id}"
                        )
            await _until_set(self.look_soon, max(next_round - boot_now(), 0.0))

    async def _look(self, seat: Seat) -> None:
        try:
            async with self._turns:
                self.waiting.discard(seat)
                if self.up:
                    await seat.ask()
        except EngineError as error:
            if isinstance(error, ServerDown):
                self.check_soon.set()
            log.debug("%s: %s", self.name, error)
        finally:
            self.waiting.discard(seat)
            self._looks.pop(seat, None)

    # its sessions

    def unit(self, id: InstanceId) -> UnitStatus:
        if (seat := self.seats.get(id)) is None:
            return UNIT_ABSENT
        return UnitStatus(UnitState.ACTIVE, run=seat.run, since=self.started_at)

    async def start(self, id: InstanceId) -> bool:
        """Watch it. False: that costs no login, for the server has it connected already."""
        new, its = id not in self.seats, self.shared.instances[id]
        try:
            seat = await self.take(id)
            claim = (await seat.call("probe", timeout=FIRST_LOOK))["claim"]
            paired, adopted = its.record.paired, its.instance.adopted
            if logs_in := needs_connect(claim, paired=paired, adopted=adopted):
                await seat.call("connect", timeout=RESTART_TIMEOUT)
            return logs_in
        except BaseException as error:
            if isinstance(error, EngineError) and error.code == "zombie":
                return True  # one that hangs is watched, and a repair restarts it
            if new:  # the start is tried again as a whole
                self.leave(id)
            raise

    async def restart(self, id: InstanceId) -> None:
        await (await self.take(id)).call("restart", timeout=RESTART_TIMEOUT)

    async def take(self, id: InstanceId) -> Seat:
        """Watch a session from now on."""
        seat = self.seats.setdefault(id, Seat(self, id, secrets.token_hex(8)))
        await self._hold(seat)
        return seat

    def leave(self, id: InstanceId) -> None:
        """Watch it no more; the session itself stays as it is."""
        seat = self.seats.pop(id, None)
        if seat is not None and seat.remote and self.api is not None:
            if (look := self._looks.pop(seat, None)) is not None:
                look.cancel()  # one that had no turn yet takes nothing away itself
            self.waiting.discard(seat)
            self.api.forget(seat.remote)

    def attach(self, id: InstanceId, listener: Listener) -> Seat:
        """`listener` gets the last claim at once, and what happened before."""
        seat = self.seats.get(id)
        if self.api is None or seat is None:
            raise LinkError(f"cannot reach {id}: its server is not watched", code="gone")
        seat.listener = listener
        seat.tell()
        unheard, seat.unheard = seat.unheard, deque(maxlen=MOST_UNHEARD)
        for what in unheard:
            listener.on_happening(seat.run, what)
        return seat

    async def _hold(self, seat: Seat) -> None:
        id = seat.id
        if self.api is None:
            raise HostError(f"cannot watch {id} on {self.name}: {self.sentence}")
        instance, record = self.shared.instances[id].instance, self.shared.instances[id].record
        remote, adopted = instance.remote or id, is_adopted(instance.settings)
        if seat.remote == remote:
            return
        if (holder := self._seat_of(remote)) is not None:
            cause = f"{holder.id} watches it"
            raise Refused(f"cannot watch {remote!r:.80} as {id}: {cause}", code="remote_taken")
        seat.session = await self.api.hold(
            remote, adopted=adopted, paired=record.paired, account=record.account
        )
        seat.remote = remote
        self.look_soon.set()

    def _seat_of(self, remote: str) -> Seat | None:
        return next((seat for seat in self.seats.values() if seat.remote == remote), None)

    # outages

    def judge(self) -> None:
        """Whether it is away, or only blinked; tell its sessions what changed."""
        if self.up:
            blinked, self.away_since = self.away_since is not None, None
            if self.down:
                self.down, self.since_wall = False, time.time()
                back = list(self.members)
                sentence = f"it is up; the agent checks its {len(back)} sessions in turn"
                self.say("backend_up", sentence)
                self.away = set(back)
                random.shuffle(back)
                self._bring_back(back, outage=True)
            elif blinked:  # only probes show which sessions it hit
                self._bring_back(list(self.members), outage=False)
        elif self.down:
            self._note_cause()
        elif self.away_since is None:
            self.away_since = boot_now()
            self._wake(self.members)  # nothing measures them now
        elif boot_now() - self.away_since >= PATIENCE:
            self.down, self.since_wall = True, time.time()
            self.asking.clear()
            self._note_cause()
            self._wake(self.members)

    def _wake(self, ids: Collection[InstanceId]) -> None:
        for id in ids:
            self.shared.wake(id)

    def _bring_back(self, ids: Sequence[InstanceId], *, outage: bool) -> None:
        async def in_turn() -> None:
            for id in ids:
                if self.down:
                    return  # the next return begins again
                self.away.discard(id)
                self.shared.look_again(id, outage)
                await asyncio.sleep(1.0 / BACK_RATE)

        self.shared.tasks.start(in_turn(), f"bring back {self.name}")

    # log and journal

    def say(self, kind: str, sentence: str, *, bad: bool = False) -> None:
        sentence = f"backend {self.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", sentence)
        detail = {"backend": self.name}
        entry = JournalEntry(kind, sentence, Category.HEALTH, None, time.time(), detail)
        self.shared.note(entry)

    def _note_cause(self) -> None:
        """Why it is away, once for each cause: also where it was away before the agent began."""
        cause = self.reason
        if cause == self._cause or (self.claim is None and not self.unread):
            return
        self._cause = cause
        if cause:
            waiting = f"; {len(self.members)} sessions wait for it" if self.members else ""
            self.say("backend_down", f"it is down: {self.sentence}{waiting}", bad=True)

    def _note_warning(self) -> None:
        """When a warning begins and when its kind changes, not for each further error."""
        before, self._warned = self._warned, self.warning
        if _COUNTS.sub("#", self._warned) == _COUNTS.sub("#", before):
            return
        if self._warned:
            self.say("backend_warning", self._warned, bad=True)
        elif self.up:
            self.say("backend_warning_over", f"its last warning is over: {before}")

    def _circuit_changed(self, state: BreakerState) -> None:
        """Noted before its sessions hear of it."""
        if state is BreakerState.OPEN:
            self.say("circuit_open", f"{self.circuit.sentence}: its sessions wait", bad=True)
        elif state is BreakerState.CLOSED:
            self.say("circuit_closed", "its circuit is closed again")
        self._wake(self.members)


def _state(claim: ServerClaim) -> tuple[object, ...]:
    """The parts that make a change news; a number in the sentence may differ each time."""
    return claim.up, claim.reason, claim.version, claim.sentence != ""


async def _until_set(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
