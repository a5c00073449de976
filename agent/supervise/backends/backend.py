"""One declared backend: the task that watches its server, its outages, and what its sessions hear.

During an outage its sessions wait (`backend_down`); when it is over, the agent checks them one
after another. A session reads and acts through its share of the server's task, as through a link.
"""

import asyncio
import logging
import random
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.backends.http import ServerDown
from agent.backends.server import Server
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.breaker import BreakerPolicy, BreakerState
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.core.model import (
    Category,
    Claim,
    Happening,
    InstanceId,
    JournalEntry,
    RemoteSession,
    ServerClaim,
)
from agent.core.words import UNREACHED, is_adopted
from agent.errors import EngineError, HostError, InvalidRequest, LinkError, WaError
from agent.link.client import Listener
from agent.link.messages import Hello
from agent.supervise.backends.circuit import Circuit, Noted
from agent.supervise.facts import Facts
from agent.supervise.loop import Wakes

log = logging.getLogger(__name__)

UNREAD_AGAIN = 5.0
PATIENCE = 10.0
"""Seconds that a backend may be away before its sessions wait for it."""
BACK_RATE = 50.0
"""Sessions per second that the agent checks after a backend returns."""
START_AGAIN = 5.0
"""Seconds after which a task that ended by a fault of the agent is started again."""
MOST_UNHEARD = 100
"""Happenings of one session that no pass listens to yet."""
STEPS = 8
"""The most requests, one after another, that a look at a session or its code takes."""
MOST_SLACK = 120.0
_COUNTS = re.compile(r"[0-9]+")

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shared:
    """What all backends use."""

    root: Path
    """A folder for each backend is in it, for what its kind keeps."""
    wakes: Wakes
    """Wakes the passes of backends; `wake` wakes those of sessions."""
    facts: Mapping[InstanceId, Facts]
    wake: Callable[[InstanceId], None]
    note: Callable[[JournalEntry], Noted]
    breaker: Callable[[], BreakerPolicy]
    crypto_patterns: Sequence[CryptoPattern] = ()


@dataclass(slots=True, eq=False, repr=False)
class Backend:
    """Times are of the boot clock unless the name says `wall`."""

    declared: BackendDeclaration
    name: InstanceId
    """Named by the same rule as instances."""
    shared: Shared
    circuit: Circuit = field(init=False)
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
    next_look: float = 0.0
    """When it is time to look for sessions to adopt."""
    server: ServerClaim | None = None
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
    """The backend's sessions that have not come back yet."""
    asking: set[InstanceId] = field(default_factory=set)
    """Sessions that want to try, and wait for a good check."""
    listener: dict[InstanceId, Listener] = field(default_factory=dict)
    unheard: dict[InstanceId, deque[Happening]] = field(default_factory=dict)
    """What logs told since the agent's start of sessions that no pass listens to yet."""
    _slow: deque[float] = field(default_factory=lambda: deque(maxlen=12))
    """The seconds that its last answers took."""
    _cause: str = ""
    _warned: str = ""
    """The reason for which it is away and its last warning, as the journal has them."""
    _returns: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.circuit = Circuit(self.shared.breaker, self._circuit_changed)

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
    def slack(self) -> float:
        """Seconds to add to a limit that a quick server would keep."""
        return min(STEPS * max(self._slow, default=0.0), MOST_SLACK)

    @property
    def names(self) -> tuple[RemoteSession, ...]:
        """The server's list of sessions, as last read."""
        return () if self.served is None else self.served.sessions

    @property
    def members(self) -> list[Facts]:
        every = self.shared.facts.values()
        return [facts for facts in every if facts.instance.backend == self.name]

    def last_words(self, id: InstanceId) -> Claim | None:
        """The last claim of that session, its proof aged by the time since."""
        fact = None if self.served is None else self.served.facts.get(id)
        if fact is None or fact.claim.proof_age is None:
            return None if fact is None else fact.claim
        return replace(fact.claim, proof_age=fact.claim.proof_age + boot_now() - fact.at)

    # the task

    async def watch(self, declared: BackendDeclaration) -> None:
        """`declared`: with its key. ConfigError: a file that it names cannot be used."""
        await self.unwatch()

        def happened(remote: str, what: Happening) -> None:
            if (id := server.id_of(remote)) is not None:
                self._happened(id, what)

        folder = self.shared.root / self.name
        if declared.engine == "evolution":
            from agent.backends.evolution import Evolution

            server = Server(declared, Evolution(declared, folder), self._changed, self.checked)
        else:
            from agent.backends.whaticket.api import Whaticket

            api = Whaticket(declared, folder, happened, patterns=self.shared.crypto_patterns)
            server = Server(declared, api, self._changed, self.checked)
        self.served, self.started_at = server, boot_now()
        for id in [id for id in self.roster if id in self.shared.facts]:
            try:
                await self.hold(id)
            except WaError as error:
                log.warning("%s", error)
                self.leave(id)
        self.task = asyncio.create_task(self._live(server), name=f"server {self.name}")
        await asyncio.sleep(0)  # cancelled before its first turn it would close no connection

    async def unwatch(self) -> None:
        """The server's sessions go on."""
        task, self.task, self.served = self.task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._lost("it is watched anew")

    async def hold(self, id: InstanceId) -> None:
        if self.served is None:
            raise HostError(f"cannot watch {id} on {self.name}: {self.sentence}")
        instance, record = self.shared.facts[id].instance, self.shared.facts[id].record
        await self.served.hold(
            id,
            instance.remote or id,
            adopted=is_adopted(instance.settings),
            paired=record.paired,
            account=record.account,
        )

    def leave(self, id: InstanceId) -> None:
        self.roster.pop(id, None)
        self.listener.pop(id, None)
        self.unheard.pop(id, None)
        if self.served is not None:
            self.served.release(id)

    def attach(self, id: InstanceId, listener: Listener) -> "ServerLink":
        """The session's share of its server's task. `listener` gets the last claim at once, and
        what happened before."""
        if self.served is None or id not in self.roster:
            raise LinkError(f"cannot reach {id}: its server is not watched", code="gone")
        self.listener[id] = listener
        if (claim := self.last_words(id)) is not None:
            listener.on_claim(self.roster[id], claim)
        for what in self.unheard.pop(id, ()):
            listener.on_happening(self.roster[id], what)
        return ServerLink(self, self.served, id)

    def close(self) -> None:
        for task in self._returns:
            task.cancel()

    async def _live(self, server: Server) -> None:
        with suppress(asyncio.CancelledError):
            try:
                await server.run()
            except Exception:
                log.exception("the task of backend %s ended: a fault of the agent", self.name)
        if self.served is server:
            self.task = self.served = None
            self.next_start = boot_now() + START_AGAIN
            self._lost("its task ended")

    def _lost(self, why: str) -> None:
        log.info("backend %s: %s", self.name, why)
        self.server = None
        for listener in list(self.listener.values()):
            listener.on_close(why)
        self.listener.clear()
        self.shared.wakes.wake(self.name)

    # what the task tells

    def _changed(self, id: InstanceId | None) -> None:
        """News of a session; None: of the server's state or its list."""
        if id is None:
            self.next_look = 0.0  # new sessions may match `adopt`
            self.shared.wakes.wake(self.name)
        elif (listener := self.listener.get(id)) and (claim := self.last_words(id)) is not None:
            listener.on_claim(self.roster.get(id, ""), claim)

    def _happened(self, id: InstanceId, what: Happening) -> None:
        if (listener := self.listener.get(id)) is not None:
            listener.on_happening(self.roster.get(id, ""), what)
        else:
            self.unheard.setdefault(id, deque(maxlen=MOST_UNHEARD)).append(what)

    def checked(self, claim: ServerClaim) -> None:
        """Each list that was read, or was not."""
        before, self.server = self.server, claim
        if claim.up:
            self._slow.append(claim.seconds)
        self.checked_at, self.checked_wall = boot_now(), time.time()
        self.version = claim.version or self.version
        self._note_warning()
        if claim.up or self.down:  # before, it may be a blink
            self._note_cause()
        reached = claim.reason != "unreachable"
        self.circuit.checked(up=claim.up, reached=reached, seconds=claim.seconds)
        if before is None or before.up != claim.up:
            self.shared.wakes.wake(self.name)
        if claim.up and not self.down:  # after an outage they are woken in turn
            asking, self.asking = self.asking, set()
            for id in asking:
                self.shared.wake(id)

    # outages

    def judge(self) -> None:
        """Whether it is away, or only blinked; tell its sessions what changed."""
        if self.up:
            blinked, self.away_since = self.away_since is not None, None
            if self.down:
                self._returned()
            elif blinked:
                self._begin(self._look_again())
        elif self.down:
            self._note_cause()
        elif self.away_since is None:
            self.away_since = boot_now()
            self.wake_members()  # nothing measures them now
        elif boot_now() - self.away_since >= PATIENCE:
            self.down, self.since_wall = True, time.time()
            self.away = {facts.id for facts in self.members}
            self.asking.clear()
            self._note_cause()
            self.wake_members()

    def wake_members(self) -> None:
        for facts in self.members:
            self.shared.wake(facts.id)

    def _returned(self) -> None:
        self.down, self.since_wall = False, time.time()
        members = [facts for facts in self.members if facts.id in self.away]
        self.say("backend_up", f"it is up; the agent checks its {len(members)} sessions in turn")
        self.away = {facts.id for facts in members}
        random.shuffle(members)
        self._begin(self._bring_back(members))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"bring back {self.name}")
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _look_again(self) -> None:
        """After a blink: only probes show which sessions it hit."""
        for facts in self.members:
            facts.next_probe, facts.asked.try_at_once = 0.0, True
            await self._wake_in_turn(facts)

    async def _bring_back(self, members: Sequence[Facts]) -> None:
        for facts in members:
            if self.down:
                return  # `_returned` begins again after the next return
            self.away.discard(facts.id)
            # Claims from before the outage prove nothing.
            facts.run.claim, facts.run.probe, facts.next_probe = None, None, 0.0
            facts.asked.try_at_once = True  # its delay dates from before the outage
            facts.run.linked_since = boot_now()
            await self._wake_in_turn(facts)

    async def _wake_in_turn(self, facts: Facts) -> None:
        self.shared.wake(facts.id)
        await asyncio.sleep(1.0 / BACK_RATE)

    # log and journal

    def say(self, kind: str, sentence: str, *, bad: bool = False, **more: str) -> Noted:
        sentence = f"backend {self.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", sentence)
        detail = {"backend": self.name, **more}
        entry = JournalEntry(kind, sentence, Category.HEALTH, None, time.time(), detail)
        return self.shared.note(entry)

    def _note_cause(self) -> None:
        """Why it is away, once for each cause: also where it was away before the agent began."""
        cause = self.reason
        if cause == self._cause or (self.server is None and not self.unread):
            return
        self._cause = cause
        if cause:
            waiting = f"; {len(self.away)} sessions wait for it" if self.away else ""
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
            by = "checks" if self.circuit.by_checks else "calls"
            sentence = f"{self.circuit.sentence}: its sessions wait"
            self.circuit.noted = self.say("circuit_open", sentence, bad=True, by=by)
        elif state is BreakerState.CLOSED:
            self.circuit.noted = self.say("circuit_closed", "its circuit is closed again")
        self.wake_members()


@dataclass(frozen=True, slots=True)
class ServerLink:
    """One session's share of its server's task."""

    backend: Backend
    server: Server
    id: InstanceId

    @property
    def hello(self) -> Hello:
        return Hello(self.id, self.backend.roster.get(self.id, ""), self.backend.declared.engine, 0)

    async def call(self, do: str, args: Answer | None = None, *, timeout: float = 10.0) -> Answer:
        return await self.backend.circuit.act(self.id, do, partial(self._call, do, args, timeout))

    async def close(self) -> None:
        self.backend.listener.pop(self.id, None)

    async def _call(self, do: str, args: Answer | None, timeout: float) -> Answer:
        limit = timeout + self.backend.slack
        if self.id not in self.backend.roster or self.backend.served is not self.server:
            raise LinkError(f"cannot {do} {self.id}: it is not watched any more", code="gone")
        try:
            async with asyncio.timeout(limit):
                return await self._do(do, args or {})
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

    async def _do(self, do: str, args: Answer) -> Answer:
        act, api = partial(self.server.act, self.id), self.server.api
        match do:
            case "probe":
                answer = await self.server.probe(self.id, deep=args.get("deep") is True)
                return {**answer.figures, "claim": answer.claim, "detail": dict(answer.detail)}
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
