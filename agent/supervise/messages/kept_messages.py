"""What arrived in sessions, as their workers keep it: read in pages, waited for, and settled when
everybody who gets it has it. Where no part of a worker keeps messages there are none to read."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from agent.clock import boot_now
from agent.core.model import Happening, InstanceId
from agent.core.words import KEPT
from agent.errors import EngineError, LinkError, NotYet, Refused, TryLater, WaError
from agent.log import about
from agent.supervise.messages.changes import MessageChanges
from agent.supervise.messages.highest_cursors import HighestCursors
from agent.supervise.messages.page import (
    KeptState,
    MessagePage,
    erased,
    read_page,
    read_state,
    whole,
)
from agent.supervise.registry import Registry
from agent.supervise.worker_link import WorkerLink

log = logging.getLogger(__name__)

ENDING = "stopping"
LONGEST_PAGE = 500
READER = ""
"""Who reads over the API: what it has counts where no webhook gets the messages."""
CALL_SECONDS = 5.0
LOOK_AGAIN = 2.0
"""Seconds after a look that failed."""
READS_AT_ONCE = 4
"""Of one session: its worker answers probes and sends meanwhile."""
_UNKNOWN_CALL = ("invalid_request", "do")


@dataclass(slots=True)
class _Session:
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be more, and replaced."""
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))
    oldest: int = 0
    newest: int = 0
    state: KeptState | None = None
    """As its worker told it last; None: not yet."""
    cursors: dict[str, int] = field(default_factory=dict)
    """By consumer: all up to it is delivered."""
    settled: int = 0
    """What its worker was told."""
    goes_above: bool = False
    """Whether the worker was told the highest cursor that is known."""


class KeptMessages:
    def __init__(self, registry: Registry, highest: HighestCursors) -> None:
        self.ending = False
        """The agent stops: who waits gets what there is."""
        self.highest = highest
        self._registry = registry
        self._sessions: dict[InstanceId, _Session] = {}
        self._followers: set[MessageChanges] = set()
        self._consumers: dict[str, Callable[[InstanceId], bool]] = {}

    async def page(
        self, id: InstanceId, after: int | None, *, limit: int = 100, wait: float = 0.0
    ) -> MessagePage:
        """The records behind the cursor; None = behind the newest. With `wait` it waits so many
        seconds for the first one, also while the session's worker is restarted."""
        ends_at, looked = boot_now() + wait, False
        while True:
            news = self._of(id).news  # taken before the look: what comes meanwhile is not missed
            failure: WaError | None = None
            try:
                page = await self._look(id, after, limit)
                if after is None:
                    after = page.next
                if page.records:
                    return page
            except (Refused, TryLater) as error:
                if isinstance(error, Refused) and not looked:
                    raise
                failure = error  # its worker ends, or is slow: the next look may be good
            looked, left = True, ends_at - boot_now()
            if self.ending and wait:
                raise NotYet(f"cannot wait for messages of {id}: the agent stops", code=ENDING)
            if left <= 0:
                if failure is not None:
                    raise failure
                return page
            await _wait(news, min(left, LOOK_AGAIN) if failure else left)

    async def wait(self, id: InstanceId, seconds: float) -> None:
        """Until there may be more."""
        if not self.ending:
            await _wait(self._of(id).news, seconds)

    def follow(self) -> MessageChanges:
        """From now on."""
        changes = MessageChanges(self._followers.discard)
        self._followers.add(changes)
        return changes

    def consume(self, consumer: str, wants: Callable[[InstanceId], bool]) -> None:
        """The consumer gets the messages of these sessions; `settled` tells how far it is."""
        self._consumers[consumer] = wants

    def forget_consumer(self, consumer: str) -> None:
        self._consumers.pop(consumer, None)
        for its in self._sessions.values():
            its.cursors.pop(consumer, None)

    async def settled(self, consumer: str, id: InstanceId, cursor: int) -> None:
        """The consumer needs nothing up to the cursor any more."""
        its = self._of(id)
        before = its.cursors.get(READER, 0) if consumer == READER else 0
        its.cursors[consumer] = max(cursor, before)
        await self.tell_settled(id)

    async def tell_settled(self, id: InstanceId) -> None:
        """Tell its worker what all have that get it; where nobody does, all is settled."""
        its, facts = self._of(id), self._registry.facts.get(id)
        least = self._settled_by_all(id, its)
        if least <= its.settled or facts is None or facts.link is None:
            return
        try:
            await facts.link.call("messages_settled", {"cursor": least}, timeout=CALL_SECONDS)
        except (LinkError, EngineError) as error:
            log.debug("cannot tell what was delivered: %s", error, extra=about(id))
            return  # it is told with the next one
        its.settled = max(its.settled, least)

    def _settled_by_all(self, id: InstanceId, its: _Session) -> int:
        cursors = (its.cursors.get(name, 0) for name, wants in self._consumers.items() if wants(id))
        return min(cursors, default=its.cursors.get(READER, its.newest))

    def sessions(self) -> list[InstanceId]:
        """Those whose workers may keep messages."""
        return [id for id, facts in self._registry.facts.items() if not facts.instance.backend]

    def created_wall(self, id: InstanceId) -> float:
        return self._registry.get(id).instance.created_wall

    def count_behind(self, id: InstanceId, cursor: int) -> int:
        """How many records it has behind the cursor, as far as its worker told."""
        its = self._sessions.get(id)
        if its is None:
            return 0
        return (its.state or KeptState()).between(max(cursor, its.oldest - 1), its.newest)

    def states(self) -> Mapping[InstanceId, KeptState]:
        return {id: its.state for id, its in self._sessions.items() if its.state is not None}

    async def ask_state(self, id: InstanceId) -> None:
        its, facts = self._of(id), self._registry.facts.get(id)
        if facts is None or facts.link is None or facts.instance.backend:
            return
        try:
            await self._tell_above(id, its, facts.link)
            raw = await facts.link.call("messages_state", {}, timeout=CALL_SECONDS)
        except (LinkError, EngineError) as error:
            log.debug("no state of its messages: %s", error, extra=about(id))
            return
        its.state = read_state(raw)
        its.newest = its.state.newest
        if its.state.bytes:
            self.highest.note(id, its.newest)

    async def _tell_above(self, id: InstanceId, its: _Session, link: WorkerLink) -> None:
        """Before it is asked for anything: nobody is given a cursor of it twice."""
        highest = self.highest.of(id)
        if highest and not its.goes_above:
            try:
                await link.call("messages_above", {"cursor": highest}, timeout=CALL_SECONDS)
            except EngineError as error:
                if (error.code, error.field) != _UNKNOWN_CALL:
                    raise
        its.goes_above = True

    async def save_highest(self) -> None:
        """The highest cursor of each session, for the next agent."""
        await self.highest.save()

    # What supervision tells

    def take(self, id: InstanceId, happening: Happening) -> bool:
        """Whether the happening is about messages alone."""
        if happening.kind != KEPT:
            return False
        its = self._of(id)
        its.newest = max(its.newest, whole(happening.detail.get("cursor")))
        self.highest.note(id, its.newest)
        self.changed(id)
        return True

    def attached(self, id: InstanceId) -> None:
        """The worker was connected: it may have kept more meanwhile."""
        its = self._of(id)
        its.settled, its.goes_above = 0, False
        self.changed(id)

    def changed(self, id: InstanceId) -> None:
        its = self._of(id)
        its.news.set()
        its.news = asyncio.Event()
        for follower in self._followers:
            follower.add(id)

    def forget(self, id: InstanceId) -> None:
        """The session was deleted."""
        self.highest.forget(id)
        if (its := self._sessions.pop(id, None)) is not None:
            its.news.set()

    def end(self) -> None:
        self.ending = True
        for its in self._sessions.values():
            its.news.set()

    # Reading

    def _of(self, id: InstanceId) -> _Session:
        return self._sessions.setdefault(id, _Session())

    async def _look(self, id: InstanceId, after: int | None, limit: int) -> MessagePage:
        if after is None:
            page = await self._ask(id, 0, 1)
            return MessagePage((), page.newest, page.oldest, page.newest, more=False)
        page = await self._ask(id, after, limit)
        if after <= page.newest:
            return page
        # What was kept is gone, and counting began again: the reader has nothing of what is new.
        page = await self._ask(id, 0, limit)
        return replace(page, records=(erased(after), *page.records))

    async def _ask(self, id: InstanceId, after: int, limit: int) -> MessagePage:
        its = self._of(id)
        async with its.reads:
            raw = await self.call(id, "messages", {"after": after, "limit": limit})
        page = read_page(raw, after)
        its.oldest, its.newest = page.oldest, page.newest
        if page.records:
            self.highest.note(id, page.newest)
        return page

    async def call(
        self, id: InstanceId, do: str, args: Mapping[str, Any], seconds: float = CALL_SECONDS
    ) -> Mapping[str, Any]:
        """A call of what keeps messages in the session's worker."""
        facts = self._registry.get(id)
        if facts.instance.backend:
            raise Refused(
                f"cannot read messages of {id}: its server ({facts.instance.backend}) has them",
                code="not_supported",
            )
        if facts.link is None:
            raise Refused(
                f"cannot read messages of {id}: its worker does not run or cannot be reached"
                f" ({facts.sentence or 'not checked yet'})",
                code="not_running",
            )
        try:
            if do == "messages":
                await self._tell_above(id, self._of(id), facts.link)
            return await facts.link.call(do, args, timeout=seconds)
        except LinkError as error:
            why = f"cannot read messages of {id}: {error}; try again"
            raise TryLater(why, code="slow") from error
        except EngineError as error:
            if (error.code, error.field) != _UNKNOWN_CALL:
                raise
            why = f"cannot read messages of {id}: its worker keeps none ([messages] keep)"
            raise Refused(why, code="not_kept") from error


async def _wait(news: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await news.wait()
