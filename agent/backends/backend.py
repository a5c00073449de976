"""One declared backend: the task that watches its server, its outages, and its sessions' seats.

During an outage its sessions wait (`backend_down`); when it is over, the agent checks them one
after another. A session reads and acts through its seat in the server's task, as through a link.
"""

import asyncio
import logging
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from agent.backends.circuit import Circuit, Noted
from agent.backends.http import ServerDown
from agent.backends.server import Server, ServerApi, until_set
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration, with_secrets
from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.core.model import (
    UNIT_ABSENT,
    Category,
    Happening,
    Instance,
    InstanceId,
    JournalEntry,
    ServerClaim,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reconnect import needs_connect
from agent.core.view import InstanceView
from agent.core.words import UNREACHED, is_adopted
from agent.engines.tasks import Tasks, cancel
from agent.errors import ConfigError, EngineError, HostError, InvalidRequest, LinkError, WaError
from agent.link.client import Listener
from agent.link.wire import Hello
from agent.store.database import Store

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds until files that cannot be read, and a task that ended by a fault, are tried again."""
LOOK_EVERY = 30.0
TAKE_OVER = 3.0
"""Seconds that a start waits for the first answer of servers."""
PATIENCE = 10.0
"""Seconds that a backend may be away before its sessions wait for it."""
BACK_RATE = 50.0
"""Sessions per second that the agent checks after a backend returns."""
MOST_UNHEARD = 100
"""Happenings of one session that no pass listens to yet."""
FIRST_LOOK, RESTART_TIMEOUT = 15.0, 120.0
"""Seconds; a server may take long to make a session, or to have it connected again."""
STEPS = 8
"""The most requests, one after another, that a look at a session or its code takes."""
MOST_SLACK = 120.0
_COUNTS = re.compile(r"[0-9]+")

Answer = Mapping[str, Any]


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
    note: Callable[[JournalEntry], Noted]
    breaker: Callable[[], BreakerPolicy]
    create: Callable[[Instance], Coroutine[Any, Any, InstanceView]] = field(init=False)
    crypto_patterns: Sequence[CryptoPattern] = ()
    tasks: Tasks = field(default_factory=lambda: Tasks(_crashed))
    discover: "Callable[[Backend], Awaitable[None]]" = field(init=False)
    """Make instances of its server's new sessions that match `adopt`, when it is time."""


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
    seats: "dict[InstanceId, Seat]" = field(default_factory=dict)
    """Of the sessions that are watched."""
    unread: str = ""
    """Why a file that it names (key, password, certificates) cannot be used: its server is not
    asked."""
    secret: BackendDeclaration | None = None
    """The declaration with its key, as last read."""
    server: Server | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """For its task: its server is up or away, its list or its key is another."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Its first check has ended, or its server cannot be asked."""
    started_at: float = 0.0
    next_look: float = 0.0
    """When it is time to look for sessions to adopt."""
    claim: ServerClaim | None = None
    """What the last request for its list told; None: none yet since its task began."""
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
            return f"{self.unread}; the agent reads it again every {AGAIN:g} s"
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
            await until_set(self.news, AGAIN)

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
        self.server = server = self._open(declared)
        self.unread, self.started_at, task = "", boot_now(), None
        try:
            for id in [id for id in self.seats if id in self.shared.instances]:
                try:
                    await self._hold(id)
                except WaError as error:
                    log.warning("%s", error)
                    self.leave(id)
            task = asyncio.create_task(server.run(), name=f"server {self.name}")
            task.add_done_callback(lambda _: self.news.set())
            await asyncio.sleep(0)  # cancelled before its first turn it would close no connection
            while self.secret is declared and not task.done():
                self.news.clear()
                self.judge()
                try:
                    await self.shared.discover(self)
                except WaError as error:
                    log.error("cannot adopt sessions of backend %s: %s", self.name, error)
                again = [boot_now() + LOOK_EVERY]
                again += [self.next_look] if self.up else []
                again += [self.away_since + PATIENCE] if self.away_since and not self.down else []
                await until_set(self.news, max(min(again) - boot_now(), 0.0))
            if task.done():
                task.result()
        finally:
            self.server = None
            await (server.api.close() if task is None else cancel(task))
            self.claim = None
            for seat in list(self.seats.values()):
                listener, seat.listener = seat.listener, None
                if listener is not None:
                    listener.on_close("the watch of its server begins again")

    def _open(self, declared: BackendDeclaration) -> Server:
        def happened(remote: str, what: Happening) -> None:
            id = server.id_of(remote)
            if id is not None and id in self.seats:
                self.seats[id].happened(what)

        folder = self.shared.root / self.name
        api: ServerApi
        if declared.engine == "evolution":
            from agent.backends.evolution import Evolution

            api = Evolution(declared, folder)
        else:
            from agent.backends.whaticket.api import Whaticket

            api = Whaticket(declared, folder, happened, patterns=self.shared.crypto_patterns)
        server = Server(declared, api, self._changed, self.checked)
        return server

    # its sessions

    def unit(self, id: InstanceId) -> UnitStatus:
        if (seat := self.seats.get(id)) is None:
            return UNIT_ABSENT
        return UnitStatus(UnitState.ACTIVE, run=seat.run, since=self.started_at)

    async def start(self, id: InstanceId) -> bool:
        """Watch it. False: that costs no login, for the server has it connected already."""
        new, its = id not in self.seats, self.shared.instances[id]
        try:
            seat = await self._seat(id)
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
        await (await self._seat(id)).call("restart", timeout=RESTART_TIMEOUT)

    def leave(self, id: InstanceId) -> None:
        self.seats.pop(id, None)
        if self.server is not None:
            self.server.release(id)

    def attach(self, id: InstanceId, listener: Listener) -> "Seat":
        """`listener` gets the last claim at once, and what happened before."""
        seat = self.seats.get(id)
        if self.server is None or seat is None:
            raise LinkError(f"cannot reach {id}: its server is not watched", code="gone")
        seat.listener = listener
        self._changed(id)
        unheard, seat.unheard = seat.unheard, deque(maxlen=MOST_UNHEARD)
        for what in unheard:
            listener.on_happening(seat.run, what)
        return seat

    async def _seat(self, id: InstanceId) -> "Seat":
        seat = self.seats.setdefault(id, Seat(self, id, secrets.token_hex(8)))
        await self._hold(id)
        return seat

    async def _hold(self, id: InstanceId) -> None:
        if self.server is None:
            raise HostError(f"cannot watch {id} on {self.name}: {self.sentence}")
        instance, record = self.shared.instances[id].instance, self.shared.instances[id].record
        await self.server.hold(
            id,
            instance.remote or id,
            adopted=is_adopted(instance.settings),
            paired=record.paired,
            account=record.account,
        )

    # what the task tells

    def _changed(self, id: InstanceId | None) -> None:
        """News of a session; None: of the server's state or its list."""
        if id is None:
            self.next_look = 0.0  # new sessions may match `adopt`
            self.news.set()
        elif self.server is not None and (claim := self.server.last_words(id)) is not None:
            seat = self.seats.get(id)
            if seat is not None and seat.listener is not None:
                seat.listener.on_claim(seat.run, claim)

    def checked(self, claim: ServerClaim) -> None:
        """Each list that was read, or was not."""
        before, self.claim = self.claim, claim
        if self.checked_wall is None and claim.up and boot_now() - self.started_at < TAKE_OVER:
            self.down = False  # the sessions of a server that is well never count as away
            self.wake_members()
        self.known.set()
        if claim.up:
            self._slow.append(claim.seconds)
        self.checked_at, self.checked_wall = boot_now(), time.time()
        self.version = claim.version or self.version
        self._note_warning()
        if claim.up or self.down:  # before, it may be a blink
            self._note_cause()
        self.circuit.checked(up=claim.up, seconds=claim.seconds)
        if before is None or before.up != claim.up:
            self.news.set()
        if claim.up and not self.down:  # after an outage they are woken in turn
            asking, self.asking = self.asking, set()
            self._wake(asking)

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
            self.wake_members()  # nothing measures them now
        elif boot_now() - self.away_since >= PATIENCE:
            self.down, self.since_wall = True, time.time()
            self.asking.clear()
            self._note_cause()
            self.wake_members()

    def wake_members(self) -> None:
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

    def say(self, kind: str, sentence: str, *, bad: bool = False) -> Noted:
        sentence = f"backend {self.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", sentence)
        detail = {"backend": self.name}
        entry = JournalEntry(kind, sentence, Category.HEALTH, None, time.time(), detail)
        return self.shared.note(entry)

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
            sentence = f"{self.circuit.sentence}: its sessions wait"
            self.circuit.noted = self.say("circuit_open", sentence, bad=True)
        elif state is BreakerState.CLOSED:
            self.circuit.noted = self.say("circuit_closed", "its circuit is closed again")
        self.wake_members()


@dataclass(slots=True, eq=False, repr=False)
class Seat:
    """One session's share of its server's task: to a pass the same as the link to a worker."""

    backend: Backend
    id: InstanceId
    run: str
    listener: Listener | None = None
    unheard: deque[Happening] = field(default_factory=lambda: deque(maxlen=MOST_UNHEARD))
    """What logs told since the agent's start, before a pass listened."""

    @property
    def hello(self) -> Hello:
        return Hello(self.id, self.run, self.backend.declared.engine, 0)

    def happened(self, what: Happening) -> None:
        if self.listener is not None:
            self.listener.on_happening(self.run, what)
        else:
            self.unheard.append(what)

    async def call(self, do: str, args: Answer | None = None, *, timeout: float = 10.0) -> Answer:
        return await self.backend.circuit.act(self.id, do, partial(self._call, do, args, timeout))

    async def close(self) -> None:
        self.listener = None

    async def _call(self, do: str, args: Answer | None, timeout: float) -> Answer:
        limit, server = timeout + self.backend.slack, self.backend.server
        if server is None or self.backend.seats.get(self.id) is not self:
            raise LinkError(f"cannot {do} {self.id}: its server is not watched", code="gone")
        try:
            async with asyncio.timeout(limit):
                return await self._do(server, do, args or {})
        except TimeoutError as error:
            cause = f"no answer in {limit:g} s"
            raise LinkError(f"cannot {do} {self.id}: {cause}", code="timeout") from error
        except ServerDown as down:
            if down.reached:
                raise
            # Told apart here: the circuit counts failures of what was reached.
            raise EngineError(str(down), code=UNREACHED) from down
        except WaError:
            raise
        except Exception as error:
            # Else the pass would end before it judges, and the last good verdict would stand.
            log.exception("cannot %s %s: a fault of the agent", do, self.id)
            cause = type(error).__name__
            raise EngineError(f"cannot {do} {self.id}: {cause}", code="internal") from error

    async def _do(self, server: Server, do: str, args: Answer) -> Answer:
        act, api = partial(server.act, self.id), server.api
        match do:
            case "probe":
                answer = await server.probe(self.id, deep=args.get("deep") is True)
                return {"claim": answer.claim, "detail": answer.detail}
            case "qr":
                code = await act(api.qr)
                return {"qr": None if code is None else asdict(code)}
            case "command":
                answered: Answer = await act(
                    api.command, str(args.get("name", "")), args.get("arguments", {})
                )
                return answered
            case "renew":
                await act(api.renew, confirmed=args.get("confirmed") is True)
            case "regenerate_keys":
                await act(api.new_keys, [str(peer) for peer in args.get("peers", ())])
            case "connect" | "disconnect" | "restart" | "logout":
                await act(getattr(api, do))
            case _:
                raise InvalidRequest(f"cannot {do}: no such call", field="do")
        return {}
