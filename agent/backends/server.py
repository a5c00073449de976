"""One task in the agent for each server of somebody's sessions.

It reads the server's list, looks at the sessions that are not known to be well, keeps what the
server said of each session with the time of its proof, and calls `changed` when that is new. What
the server does wrong stays its own: each request has a deadline, and no session waits for another.
"""

import asyncio
import fnmatch
import hashlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from agent.backends.http import ServerDown
from agent.clock import boot_now
from agent.config import BackendDeclaration
from agent.core.breaker import Breaker, BreakerPolicy, BreakerState
from agent.core.model import (
    Claim,
    ClaimFact,
    InstanceId,
    RemoteSession,
    ServerClaim,
    parse_instance_id,
)
from agent.engines.base import ProbeAnswer, Qr
from agent.errors import EngineError, NotFound, Refused

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
_NOTED_AT_ONCE = 50
"""Claims, between which other tasks have their turn."""
_SLUG = 40
_NOT_OURS = re.compile(r"[^a-z0-9_-]+")


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

    async def delete(self, remote: str) -> None: ...

    async def qr(self, remote: str) -> Qr | None: ...

    async def pairing_code(self, remote: str, phone: str) -> Mapping[str, Any]: ...

    async def close(self) -> None: ...


class Server:
    """`run` is its task. All other methods belong to the same loop."""

    def __init__(
        self,
        declared: BackendDeclaration,
        api: ServerApi,
        policy: BreakerPolicy,
        changed: Callable[[InstanceId | None], None],
    ) -> None:
        """`changed` is called with the id of a session whose claim has new words or a first proof,
        and with None if the server's own state, or its list, has changed."""
        self.declared, self.policy = declared, policy
        self.claim: ServerClaim | None = None
        """The server's state; None before the first list."""
        self.checked_at = float("-inf")
        self.sessions: tuple[RemoteSession, ...] = ()
        """The last list."""
        self.facts: dict[InstanceId, ClaimFact] = {}
        """The newest claim of each session that was looked at."""
        self.breaker = Breaker()
        self._api = api
        self._changed = changed
        self._remotes: dict[InstanceId, str] = {}
        self._ids: dict[str, InstanceId] = {}
        """The same by the server's names."""
        self._looks: dict[str, asyncio.Task[None]] = {}
        """The looks of the rounds that are under way."""
        self._waiting: deque[str] = deque()
        """The sessions of this round that are not looked at yet."""
        self._failed_by_list = False
        self._next_check: float | None = None
        self._checking: asyncio.Task[None] | None = None
        self._check_soon = asyncio.Event()
        self._look_soon = asyncio.Event()
        self._last_looked: dict[str, float] = {}

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
            await self._api.close()

    async def check(self) -> ServerClaim:
        """Read the list now; callers at the same time share one request."""
        if self._checking is None or self._checking.done():
            name = f"list of {self.declared.name}"
            self._checking = asyncio.create_task(self._check(), name=name)
        await asyncio.shield(self._checking)
        assert self.claim is not None
        return self.claim

    async def _read_lists(self) -> None:
        while True:
            begun = boot_now()
            self._check_soon.clear()
            await self.check()
            up = self.claim is not None and self.claim.up
            self._next_check = begun + (self._api.list_every if up else EVERY)
            await _first(self._check_soon, max(self._next_check - boot_now(), SOON))
            await asyncio.sleep(max(begun + SOON - boot_now(), 0.0))

    async def _check(self) -> None:
        count = len(self.sessions) if self.claim is not None else None
        try:
            listed = await self._api.sessions()
        except ServerDown as down:
            self._api.away()
            if down.reached:
                self._failed(by_list=True)
            self._note_server(ServerClaim(False, down.reason, str(down)))
            return
        except EngineError as error:
            self._note_server(ServerClaim(True, "", str(error), sessions=count))
            return
        except Exception:
            log.exception("cannot read the list of %s: a fault of the agent", self.declared.name)
            self._note_server(ServerClaim(False, "garbage", "its list cannot be read"))
            return
        if self._failed_by_list:
            self._succeeded()
        same = self.sessions == listed.sessions
        self.sessions = listed.sessions
        claim = ServerClaim(
            *(True, listed.reason, listed.warning, self._api.version, listed.seconds),
            sessions=len(listed.sessions),
        )
        self._note_server(claim, listed=not same)
        for number, id in enumerate(list(self.facts)):  # a list tells of pairings and ends
            if id in self._remotes:
                self._note(id)
            if number % _NOTED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _note_server(self, claim: ServerClaim, *, listed: bool = False) -> None:
        before, self.claim, self.checked_at = self.claim, claim, boot_now()
        news = before is None or _state(before) != _state(claim)
        if news and claim.up:
            self._look_soon.set()
        if news or listed:
            self._changed(None)

    async def _look_around(self) -> None:
        """Rounds of looks, each in a task of its own: one that hangs delays no other."""
        while True:
            self._look_soon.clear()
            if self.claim is not None and self.claim.up:
                due = sorted(self._api.due(), key=lambda it: self._last_looked.get(it, 0.0))
                self._waiting = deque(due)
                self._begin_looks()
            await _first(self._look_soon, EVERY)

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
                return await self._api.look(remote, deep=deep)
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
        await self._api.hold(remote, adopted=adopted, paired=paired, account=account)
        self._remotes[id], self._ids[remote] = remote, id
        self._look_soon.set()

    def release(self, id: InstanceId) -> None:
        """Watch it no more; the session itself stays as it is."""
        if (remote := self._remotes.pop(id, None)) is not None:
            del self._ids[remote]
            if (look := self._looks.get(remote)) is not None:
                look.cancel()
            self._api.forget(remote)
            self._last_looked.pop(remote, None)
            self.facts.pop(id, None)

    async def probe(self, id: InstanceId, *, deep: bool = False) -> ProbeAnswer:
        """Ask for one session at once."""
        remote = self._remotes[id]
        try:
            detail = await self._ask(remote, deep=deep)
        finally:
            self._note_remote(remote)
        if id not in self.facts:
            raise EngineError(f"cannot probe {id}: it was released meanwhile", code="released")
        return ProbeAnswer(self.facts[id].claim, detail)

    async def connect(self, id: InstanceId) -> None:
        async with self._acting(id, "connect") as remote:
            await self._api.connect(remote)

    async def restart(self, id: InstanceId) -> None:
        async with self._acting(id, "restart") as remote:
            await self._api.restart(remote)

    async def renew(self, id: InstanceId, *, confirmed: bool) -> None:
        """End the pairing and begin a fresh one; with a proof, or `confirmed` by a person."""
        async with self._acting(id, "renew") as remote:
            await self._api.renew(remote, confirmed=confirmed)

    async def logout(self, id: InstanceId) -> None:
        """End the pairing; with a proof or by a person's word."""
        async with self._acting(id, "log out", counts=False) as remote:
            await self._api.logout(remote)

    async def delete(self, id: InstanceId) -> None:
        """Delete it on the server for good; by a person's word."""
        async with self._acting(id, "delete", counts=False) as remote:
            await self._api.delete(remote)

    async def qr(self, id: InstanceId) -> Qr | None:
        async with self._acting(id, "get a code of", counts=False) as remote:
            return await self._api.qr(remote)

    async def pairing_code(self, id: InstanceId, phone: str) -> Mapping[str, Any]:
        async with self._acting(id, "get a pairing code of", counts=False) as remote:
            return await self._api.pairing_code(remote, phone)

    async def act(self, id: InstanceId, what: str, work: Callable[[str], Awaitable[T]]) -> T:
        """An action that only one kind of server has; `work` gets the server's name of it."""
        async with self._acting(id, what, counts=False) as remote:
            return await work(remote)

    def id_of(self, remote: str) -> InstanceId | None:
        return self._ids.get(remote)

    @asynccontextmanager
    async def _acting(
        self, id: InstanceId, what: str, *, counts: bool = True
    ) -> AsyncIterator[str]:
        """An action. `counts`: the breaker counts it, and refuses it while it is open: what the
        agent does by itself. A person's order goes through."""
        now, remote = boot_now(), self._remotes[id]
        self._refuse_if_down(f"{what} {id}")
        if counts and not self.breaker.may_try(now, self.policy):
            raise EngineError(f"cannot {what} {id}: {self.sentence}", code="circuit_open")
        if counts:
            self.breaker = self.breaker.after_try(now, self.policy)
        answered = True
        try:
            yield remote
        except ServerDown as down:
            answered = False
            self._check_soon.set()
            if counts and down.reached:
                self._failed(by_list=False)
            raise
        except asyncio.CancelledError:
            answered = False
            raise
        finally:
            if counts and answered:  # a refusal is about the session
                self._succeeded()
            self._note_remote(remote)
            self._look_soon.set()

    def _note_remote(self, remote: str) -> None:
        if (id := self._ids.get(remote)) is not None:
            self._note(id)

    def _note(self, id: InstanceId) -> None:
        """Keep what the server says of it now."""
        if (claim := self._api.claim(self._remotes[id])) is None:
            return
        now, before = boot_now(), self.facts.get(id)
        same = before is not None and before.claim.status is claim.status
        same_phase = before is not None and same and before.claim.phase == claim.phase
        self.facts[id] = ClaimFact(
            claim,
            at=now,
            since=before.since if before and same else now,
            phase_since=before.phase_since if before and same_phase else now,
        )
        proved = before is not None and before.claim.proof_age is not None
        news = before is None or _words(before.claim) != _words(claim)
        if news or (claim.proof_age is not None) != proved:
            self._changed(id)

    # the server

    @property
    def circuit(self) -> BreakerState:
        return self.breaker.state(boot_now(), self.policy)

    @property
    def next_check(self) -> float | None:
        """In so many seconds the list is read again."""
        return None if self._next_check is None else max(0.0, self._next_check - boot_now())

    @property
    def sentence(self) -> str:
        """What is wrong with the server; "" = nothing."""
        if self.claim is None:
            return "the agent has not checked it yet"
        if self.claim.up and self.circuit is not BreakerState.CLOSED:
            wait = self.breaker.opens_in(boot_now(), self.policy)
            failures = f"after {self.breaker.failures} failures in a row"
            return f"its circuit is {self.circuit} {failures}, and lets one try in {wait:.0f} s"
        return self.claim.sentence

    def _failed(self, *, by_list: bool) -> None:
        before, now = self.circuit, boot_now()
        if by_list:  # a list that fails after the pause was the trial
            self.breaker = self.breaker.after_try(now, self.policy)
        self.breaker = self.breaker.after_failure(now, self.policy)
        # What failed actions opened no list closes.
        self._failed_by_list = by_list and (before is BreakerState.CLOSED or self._failed_by_list)
        if self.circuit is not before:
            self._changed(None)

    def _succeeded(self) -> None:
        before, self.breaker = self.circuit, self.breaker.after_success()
        self._failed_by_list = False
        if before is not BreakerState.CLOSED:
            self._changed(None)

    # adoption

    def new_sessions(
        self, let_go: Collection[str], taken: Collection[InstanceId]
    ) -> list[tuple[InstanceId, str]]:
        """The listed sessions that match `adopt` and are no instances yet, with an id for each.
        `let_go`: those whose instances a person deleted. `taken`: the ids of all instances."""
        ids, found = set(taken), []
        for session in self.sessions:
            words = [word for word in (session.name, session.title) if word]
            wanted = any(fnmatch.fnmatchcase(w, p) for w in words for p in self.declared.adopt)
            if wanted and session.name not in self._ids and session.name not in let_go:
                id = self.free_id(session.name, ids)
                ids.add(id)
                found.append((id, session.name))
        return found

    def free_id(self, remote: str, taken: Collection[InstanceId]) -> InstanceId:
        """The server's name where it is a free id, else an id made from it."""
        slug = _NOT_OURS.sub("-", remote.lower()).strip("-_")[:_SLUG]
        if slug == remote and InstanceId(slug) not in taken:
            return parse_instance_id(slug)
        mark = hashlib.sha256(f"{self.declared.name}/{remote}".encode()).hexdigest()[:6]
        return parse_instance_id(f"{slug or self.declared.name[:_SLUG]}-{mark}")

    def session_meant(self, asked: str) -> str:
        """The server's name of the session that a person called by its name or its title."""
        if any(session.name == asked for session in self.sessions):
            return asked
        titled = [session.name for session in self.sessions if session.title == asked != ""]
        name = self.declared.name
        if len(titled) > 1:
            raise Refused(
                f"cannot adopt {asked!r:.80}: {name} has {len(titled)} sessions of that name;"
                f" take one of {', '.join(titled[:5])}",
                field="remote",
                code="ambiguous",
            )
        if not titled:
            raise NotFound(f"cannot adopt {asked!r:.80}: {name} has no such session")
        return titled[0]


def _state(claim: ServerClaim) -> tuple[object, ...]:
    """What is told of a change; the sentence may hold a number that is another each time."""
    return claim.up, claim.reason, claim.version, claim.sentence != ""


def _words(claim: Claim) -> Claim:
    """All of a claim but its ages."""
    return replace(claim, proof_age=None, still_for=0.0)


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
