"""One task in the agent for each server of somebody's sessions.

It reads the server's list, looks at the sessions that are not known to be well, keeps what the
server said of each session with the time of its proof, and calls `changed` when that is new. What
the server does wrong stays its own: each request has a deadline, and no session waits for another.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from agent.backends.http import ServerDown
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.model import Claim, ClaimFact, InstanceId, RemoteSession, ServerClaim
from agent.engines.base import ProbeAnswer, Qr
from agent.errors import EngineError, Refused

log = logging.getLogger(__name__)
T = TypeVar("T")

EVERY = 5.0
"""Seconds between two rounds of looks, and between two lists of a server that is down."""
SOON = 1.0
"""Seconds between two lists where a failed request asks for one."""
LOOKS = 30
"""The most looks at once, so that an outage of a thousand sessions leaves the loop to others."""
LOOK_LIMIT = 8.0
"""Seconds for one look, or 0.8 of a request's time if that is less."""
_LOOK_SHARE = 0.8
_ACTIONS = {"logout": "log out", "qr": "get a code of", "new_keys": "make new keys of"}
STEADY = 60.0
"""Seconds without another account after which a session is again the one that was held: two servers
behind one address tell of both in turn."""
_NOTED_AT_ONCE = 50
"""Claims, between which other tasks have their turn."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A server's list."""

    sessions: tuple[RemoteSession, ...]
    seconds: float
    reason: str = ""
    """A code of ServerClaim for what a server that is up lacks; "" = nothing."""
    warning: str = ""
    """The same as a sentence."""


class ServerApi(Protocol):
    """What one kind of server can do; its sessions are named as the server names them.

    ServerDown says that the server itself gave no usable answer, another EngineError something of
    the one session. An action that may end a pairing is called with a proof or a person's word.
    """

    @property
    def version(self) -> str:
        """The server's own; "" = not told."""

    @property
    def list_every(self) -> float:
        """Seconds between two lists while the server is up."""

    async def sessions(self) -> Listed:
        """All sessions, by one request. EngineError `list_failed`: only the list does not come."""

    def away(self) -> None:
        """The server was found down: what comes back may be other sessions of these names."""

    async def hold(self, remote: str, *, adopted: bool, paired: bool, account: str) -> None:
        """Know this session from now on. `paired` and `account`: as the agent remembers it."""

    def forget(self, remote: str) -> None: ...

    def claim(self, remote: str) -> Claim | None:
        """None: the server has said nothing of it yet."""

    def due(self) -> Sequence[str]:
        """The sessions to look at in this round."""

    async def look(self, remote: str, *, deep: bool = False) -> Mapping[str, Any]:
        """Ask the server for this session; `deep`: also for a proof, and compare what it says."""

    async def connect(self, remote: str) -> None: ...

    async def restart(self, remote: str) -> None: ...

    async def logout(self, remote: str) -> None: ...

    async def renew(self, remote: str, *, confirmed: bool) -> None: ...

    async def disconnect(self, remote: str) -> None: ...

    async def new_keys(self, remote: str, peers: Sequence[str]) -> None:
        """Let the keys of these contacts be made anew; none named: what is damaged."""

    async def qr(self, remote: str) -> Qr | None: ...

    async def command(
        self, remote: str, name: str, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What only this kind of server can do."""

    async def close(self) -> None: ...


class Server:
    """`run` is its task. All other methods belong to the same loop."""

    def __init__(
        self,
        declared: BackendDeclaration,
        api: ServerApi,
        changed: Callable[[InstanceId | None], None],
        checked: Callable[[ServerClaim], None],
    ) -> None:
        """`changed` is called with the id of a session whose claim has new words or a first proof,
        and with None if the server's own state, or its list, has changed; `checked` with each
        answer to a request for the list, or its failure."""
        self.declared = declared
        self.claim: ServerClaim | None = None
        """The server's state; None before the first list."""
        self.sessions: tuple[RemoteSession, ...] = ()
        """The last list."""
        self.facts: dict[InstanceId, ClaimFact] = {}
        """The newest claim of each session that was looked at."""
        self.api = api
        self._changed, self._checked = changed, checked
        self._remotes: dict[InstanceId, str] = {}
        self._ids: dict[str, InstanceId] = {}
        """The same by the server's names."""
        self._looks: dict[str, asyncio.Task[None]] = {}
        """The looks of the rounds that are under way."""
        self._waiting: deque[str] = deque()
        """The sessions of this round that are not looked at yet."""
        self._next_check: float | None = None
        self._checking: asyncio.Task[None] | None = None
        self._check_soon = asyncio.Event()
        self._look_soon = asyncio.Event()
        self._last_looked: dict[str, float] = {}
        self._owners: dict[InstanceId, str] = {}
        self._others: dict[InstanceId, tuple[float, str]] = {}
        """The account that each session had at first, and another that was told of it."""

    # the task

    async def run(self) -> None:
        """Until cancelled; it closes the connections at its end."""
        try:
            async with asyncio.TaskGroup() as group:
                name = self.declared.name
                group.create_task(self._read_lists(), name=f"lists of {name}")
                group.create_task(self._look_around(), name=f"looks at {name}")
        finally:
            self._waiting.clear()
            tasks = [*self._looks.values(), *filter(None, [self._checking])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.api.close()

    async def check(self) -> ServerClaim:
        """Read the list now; callers at the same time share one request."""
        if self._checking is None or self._checking.done():
            name = f"list of {self.declared.name}"
            self._checking = asyncio.create_task(self._check(), name=name)
        checking = self._checking
        await asyncio.wait([checking])  # its end by `run` is not the end of who waits
        if checking.cancelled() or self.claim is None:
            return ServerClaim(False, "not_checked", "its watch begins again")
        return self.claim

    async def _read_lists(self) -> None:
        while True:
            begun = boot_now()
            self._check_soon.clear()
            await self.check()
            up = self.claim is not None and self.claim.up
            self._next_check = begun + (self.api.list_every if up else EVERY)
            await until_set(self._check_soon, max(self._next_check - boot_now(), SOON))
            await asyncio.sleep(max(begun + SOON - boot_now(), 0.0))

    async def _check(self) -> None:
        count = len(self.sessions) if self.claim is not None else None
        try:
            listed = await self.api.sessions()
        except ServerDown as down:
            self.api.away()
            self._note_server(ServerClaim(False, down.reason, str(down)))
            return
        except EngineError as error:
            self._note_server(ServerClaim(True, "", str(error), sessions=count))
            return
        except Exception:
            log.exception("cannot read the list of %s: a fault of the agent", self.declared.name)
            self._note_server(ServerClaim(False, "garbage", "its list cannot be read"))
            return
        same = self.sessions == listed.sessions
        self.sessions = listed.sessions
        claim = ServerClaim(
            *(True, listed.reason, listed.warning, self.api.version, listed.seconds),
            sessions=len(listed.sessions),
        )
        self._note_server(claim, listed=not same)
        for number, id in enumerate(list(self.facts)):  # a list tells of pairings and ends
            if id in self._remotes:
                self._note(id)
            if number % _NOTED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _note_server(self, claim: ServerClaim, *, listed: bool = False) -> None:
        before, self.claim = self.claim, claim
        news = before is None or _state(before) != _state(claim)
        if news and claim.up:
            self._last_looked.clear()
            self._look_soon.set()
        self._checked(claim)
        if news or listed:
            self._changed(None)

    async def _look_around(self) -> None:
        """Rounds of looks, each in a task of its own: one that hangs delays no other. A round that
        begins earlier leaves out what was just looked at: a thousand sessions are held at once."""
        next_round = latest = boot_now()
        while True:
            self._look_soon.clear()
            if self.claim is not None and self.claim.up:
                due = [it for it in self.api.due() if self._last_looked.get(it, 0.0) <= latest]
                self._waiting = deque(sorted(due, key=self._order))
                self._begin_looks()
            if latest >= next_round:
                next_round = latest + EVERY
            await until_set(self._look_soon, max(next_round - boot_now(), 0.0))
            latest = boot_now()
            latest -= EVERY if latest < next_round else 0.0

    def _order(self, remote: str) -> tuple[bool, float]:
        """Those without a proof first: the others are looked at because they opened lately."""
        fact = self.facts.get(self._ids[remote]) if remote in self._ids else None
        proved = fact is not None and fact.claim.proof_age is not None
        return proved, self._last_looked.get(remote, 0.0)

    def _begin_looks(self) -> None:
        while self._waiting and len(self._looks) < LOOKS:
            remote = self._waiting.popleft()
            if remote in self._ids and remote not in self._looks:
                task = asyncio.create_task(self._look(remote), name=f"look at {remote}")
                self._looks[remote] = task

    async def _look(self, remote: str) -> None:
        try:
            await self._ask(remote)
        except EngineError as error:
            log.debug("%s: %s", self.declared.name, error)
        except Exception:
            log.exception("a look at %s on %s failed", remote, self.declared.name)
        finally:
            del self._looks[remote]
            self._note_remote(remote)
            self._begin_looks()

    async def _ask(self, remote: str, *, deep: bool = False) -> Mapping[str, Any]:
        self._refuse_if_down(f"look at {remote}")
        limit = min(LOOK_LIMIT, self.declared.timeout * _LOOK_SHARE)
        self._last_looked[remote] = boot_now()
        try:
            async with asyncio.timeout(limit):
                return await self.api.look(remote, deep=deep)
        except TimeoutError as error:
            self._check_soon.set()
            cause = f"no answer within {round(limit, 1):g} s"
            raise ServerDown(f"look at {remote}", "timeout", cause) from error
        except ServerDown:
            self._check_soon.set()
            raise

    def _refuse_if_down(self, what: str) -> None:
        """No session waits for the silence of a server that is known to be down."""
        if self.claim is not None and not self.claim.up:
            raise ServerDown(what, self.claim.reason, self.claim.sentence, reached=False)

    # its sessions

    async def hold(
        self, id: InstanceId, remote: str, *, adopted: bool, paired: bool, account: str
    ) -> None:
        """Watch a session from now on."""
        if (taken := self._ids.get(remote, id)) != id:
            cause = f"{taken} watches it"
            raise Refused(f"cannot watch {remote!r:.80} as {id}: {cause}", code="remote_taken")
        if self._remotes.get(id) == remote:
            return
        self.release(id)
        await self.api.hold(remote, adopted=adopted, paired=paired, account=account)
        self._remotes[id], self._ids[remote] = remote, id
        self._owners[id] = account
        self._look_soon.set()

    def release(self, id: InstanceId) -> None:
        """Watch it no more; the session itself stays as it is."""
        if (remote := self._remotes.pop(id, None)) is not None:
            del self._ids[remote]
            if (look := self._looks.get(remote)) is not None:
                look.cancel()
            self.api.forget(remote)
            self._last_looked.pop(remote, None)
            self.facts.pop(id, None)

    async def probe(self, id: InstanceId, *, deep: bool = False) -> ProbeAnswer:
        """Ask for one session at once. Not `deep`: where its turn in this round has not come, the
        last look tells, or probes of a thousand would wait for turns until all are too late."""
        remote = self._remotes[id]
        if remote in self._waiting and not deep:
            if (claim := self.last_words(id)) is None:
                cause = "others are looked at first"
                raise ServerDown(f"look at {remote}", "timeout", cause, reached=False)
            return ProbeAnswer(claim, {})
        try:
            detail = await self._ask(remote, deep=deep)
        finally:
            self._note_remote(remote)
        if id not in self.facts:
            raise EngineError(f"cannot probe {id}: it was released meanwhile", code="released")
        return ProbeAnswer(self.facts[id].claim, detail)

    async def act(
        self, id: InstanceId, action: Callable[..., Awaitable[T]], *args: Any, **more: Any
    ) -> T:
        """One of the actions of `api` on a session, at once."""
        remote, what = self._remotes[id], action.__name__
        self._refuse_if_down(f"{_ACTIONS.get(what, what)} {id}")
        try:
            return await action(remote, *args, **more)
        except ServerDown:
            self._check_soon.set()
            raise
        finally:
            self._note_remote(remote)
            self._last_looked.pop(remote, None)
            self._look_soon.set()

    def _note_remote(self, remote: str) -> None:
        if (id := self._ids.get(remote)) is not None:
            self._note(id)

    def _note(self, id: InstanceId) -> None:
        """Keep what the server says of it now."""
        if (claim := self.api.claim(self._remotes[id])) is None:
            return
        now, before = boot_now(), self.facts.get(id)
        own = self._owners[id] = self._owners.get(id) or claim.account
        if claim.account and claim.account != own:
            self._others[id] = now, claim.account
        elif id in self._others and now - self._others[id][0] < STEADY:
            claim = replace(claim, account=self._others[id][1])
        self.facts[id] = ClaimFact(claim, at=now, since=now)
        proved = before is not None and before.claim.proof_age is not None
        news = before is None or _words(before.claim) != _words(claim)
        if news or (claim.proof_age is not None) != proved:
            self._changed(id)

    def last_words(self, id: InstanceId) -> Claim | None:
        """The last claim of that session, its proof aged by the time since."""
        if (fact := self.facts.get(id)) is None:
            return None
        proved_at = fact.proved_at()
        return replace(fact.claim, proof_age=None if proved_at is None else boot_now() - proved_at)

    # the server

    def id_of(self, remote: str) -> InstanceId | None:
        return self._ids.get(remote)

    def hurry(self) -> None:
        """Read the list soon."""
        self._check_soon.set()

    @property
    def next_check(self) -> float | None:
        """In so many seconds the list is read again."""
        return None if self._next_check is None else max(0.0, self._next_check - boot_now())


def _state(claim: ServerClaim) -> tuple[object, ...]:
    """What is told of a change; the sentence may hold a number that is another each time."""
    return claim.up, claim.reason, claim.version, claim.sentence != ""


def _words(claim: Claim) -> Claim:
    """All of a claim but its ages."""
    return replace(claim, proof_age=None, still_for=0.0)


async def until_set(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
