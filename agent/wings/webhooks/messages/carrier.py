"""Carries what arrives in sessions to one webhook: in order within a session, and no session waits
for another one's worker. It looks when a worker kept more or was connected, not on a clock."""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from agent.core.model import Category, InstanceId, JournalEntry
from agent.daemon.wing_parts import EventFormat, MessageSource
from agent.errors import NotFound, Refused, StoreError, WaError
from agent.log import about
from agent.store.database import Store
from agent.wings.webhooks.courier import AFTER_FAULT
from agent.wings.webhooks.deliveries import Answer, DeadLetter, Pace, Result
from agent.wings.webhooks.messages.begin import cursor_before
from agent.wings.webhooks.messages.cursors import Letter, MessageCursors
from agent.wings.webhooks.messages.gate import TargetGate
from agent.wings.webhooks.settings import (
    WebhookDeclaration,
    consumer_of,
    gets_messages_of,
    message_kinds,
)
from agent.wings.webhooks.target import Target

log = logging.getLogger(__name__)

PAGE = 50
READS, LANES = 32, 8
"""Pages in memory, and posts under way, of one webhook at most."""
SAVE_EVERY = 0.5
"""Seconds of deliveries, at most, that a kill lets be sent twice."""
GAP = "message_gap"
LONGEST_PAUSE = 60.0
LEAVES_WITHIN = 5.0
"""Seconds that a record which is being sent has, while its session moves to another machine."""


@dataclass(slots=True)
class _Session:
    again: bool = False
    """There may be more than was looked at."""
    serving: bool = False
    since_wall: float | None = None
    """When the record that is tried now was kept."""
    leaving: bool = False
    """It moves to another machine."""
    task: asyncio.Task[None] | None = None


class MessageCarrier:
    """`run` carries; the rest never waits."""

    def __init__(
        self,
        declared: WebhookDeclaration,
        store: Store,
        source: MessageSource,
        *,
        machine: str,
        version: str,
        results: Counter[Result],
        pace: Pace,
        jitter: Callable[[], float] = random.random,
        form: EventFormat | None = None,
    ) -> None:
        self._declared = declared
        self._store = store
        self._source = source
        self._results = results
        self._kinds = (*message_kinds(declared), GAP)
        self._target = Target(
            declared, results, machine=machine, version=version, connections=LANES, form=form
        )
        self.gate = TargetGate(
            declared,
            self._target,
            results=results,
            pace=pace,
            jitter=jitter,
            put_aside=self._put_aside,
            report=self._report,
        )
        self._cursors: MessageCursors | None = None
        self._sessions: dict[InstanceId, _Session] = {}
        self._reads, self._lanes = asyncio.Semaphore(READS), asyncio.Semaphore(LANES)
        self._moved = asyncio.Event()
        """A cursor is not saved yet."""
        self._group: asyncio.TaskGroup | None = None

    @property
    def consumer(self) -> str:
        return consumer_of(self._declared)

    @property
    def waiting(self) -> int:
        if self._cursors is None:
            return 0
        known = self._cursors.items()
        return sum(self._source.count_behind(id, known.get(id, 0)) for id in self._sessions)

    @property
    def oldest_wall(self) -> float | None:
        tried = (its.since_wall for its in self._sessions.values())
        return min((wall for wall in tried if wall is not None), default=None)

    def dead(self) -> Sequence[DeadLetter]:
        return tuple(self._cursors.dead.values()) if self._cursors else ()

    def position(self, id: InstanceId) -> int | None:
        """All up to it is settled; None: it has none of this session."""
        return None if self._cursors is None else self._cursors.items().get(id)

    async def leave(self, id: InstanceId) -> None:
        """Its session moves: what is being sent may end, and nothing more is begun."""
        its = self._sessions.get(id)
        if its is None:
            return
        its.leaving = True
        if its.task is not None and not its.task.done():
            _, pending = await asyncio.wait({its.task}, timeout=LEAVES_WITHIN)
            for task in pending:  # its next machine sends it again
                task.cancel()
            its.serving = False

    def stay(self, id: InstanceId) -> None:
        if (its := self._sessions.get(id)) is not None and its.leaving:
            its.leaving = False
            self._begin(id)

    def bring(self, id: InstanceId, born_wall: float, cursor: int) -> None:
        """Where it goes on in a session that arrives."""
        if self._cursors is not None:
            self._cursors.bring(id, born_wall, cursor)
        self._sessions.pop(id, None)

    def retry(self) -> int:
        """Try now, dead letters included; returns their number."""
        self.gate.retry()
        again = [] if self._cursors is None else list(self._cursors.dead)
        if again and self._group is not None:
            self._group.create_task(self._try_dead(again), name=f"{self.consumer}: dead letters")
        return len(again)

    def reopen(self) -> None:
        """Read its secret and its certificates again, and try now."""
        self._target.reopen()
        self.gate.hurry()

    async def run(self) -> None:
        """Until it is cancelled; after an internal error it goes on from its cursors."""
        while True:
            try:
                await self._carry()
            except* StoreError as errors:
                log.error("%s: %s", self.consumer, errors.exceptions[0])
            except* Exception:
                log.exception("%s: internal error; it starts again", self.consumer)
            await asyncio.sleep(AFTER_FAULT)

    async def _carry(self) -> None:
        changes, self._sessions = self._source.follow(), {}
        there = frozenset(self._source.sessions())
        cursors = self._cursors = await MessageCursors.open(
            self._store, self._declared.name, oldest=self._declared.oldest, there=there
        )
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._save(cursors), name=f"{self.consumer}: cursors")
                for id in there:
                    self._begin(id)
                while True:
                    for id in await changes.next():
                        self._begin(id)
        finally:
            self._group = None
            changes.close()
            await self._target.close()
            with contextlib.suppress(StoreError):
                await cursors.save()

    async def _save(self, cursors: MessageCursors) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            for id in await cursors.save():
                assert self._group is not None
                self._group.create_task(self._settled(id), name=f"{self.consumer}: {id} settled")
            await asyncio.sleep(SAVE_EVERY)

    async def _settled(self, id: InstanceId) -> None:
        if self._cursors is not None:
            await self._source.settled(self.consumer, id, self._cursors.saved(id))

    def _begin(self, id: InstanceId) -> None:
        if self._group is None or not gets_messages_of(self._declared, id):
            return
        its = self._sessions.setdefault(id, _Session())
        its.again = True
        if not its.serving and not its.leaving:
            its.serving = True
            its.task = self._group.create_task(self._serve(id, its), name=f"{self.consumer}: {id}")

    async def _serve(self, id: InstanceId, its: _Session) -> None:
        """Until it has no more; its worker's next word begins it again."""
        pause, more = 0.0, True
        while more or its.again:
            its.again = False
            try:
                more = await self._carry_page(id, its)
                pause = 0.0
            except (Refused, NotFound):
                more = False  # its worker does not run, or keeps nothing
            except Exception as error:
                # Of one session: the others go on.
                bad = not isinstance(error, WaError) or isinstance(error, StoreError)
                level = logging.ERROR if bad else logging.DEBUG
                log.log(level, "%s: %s", self.consumer, error, extra=about(id))
                pause = min(max(pause * 2, 1.0), LONGEST_PAUSE)
                await asyncio.sleep(pause)
            finally:
                its.since_wall = None
        its.serving = False
        await self._settled(id)

    async def _carry_page(self, id: InstanceId, its: _Session) -> bool:
        """Whether there is more."""
        assert self._cursors is not None
        async with self._reads:
            at = await self._find_cursor(id)
            page = await self._source.page(id, at, limit=PAGE)
            wanted = [record for record in page.records if self._wants(record)]
            if wanted:
                its.since_wall = float(wanted[0].get("kept") or time.time())
                await self._lanes.acquire()
        try:
            for record in wanted:
                if its.leaving:
                    return False
                its.since_wall = float(record.get("kept") or time.time())
                await self.gate.settle(id, record)
                self._move(id, int(record["cursor"]))
        finally:
            if wanted:
                self._lanes.release()
        if page.next != at:
            self._move(id, page.next)
        return page.more

    def _move(self, id: InstanceId, cursor: int) -> None:
        assert self._cursors is not None
        self._cursors.move(id, cursor)
        self._moved.set()

    async def _find_cursor(self, id: InstanceId) -> int:
        assert self._cursors is not None
        born_wall = self._source.created_wall(id)
        found = self._cursors.find(id, born_wall)
        if found is None:
            found = await cursor_before(self._source, id, self._cursors.begun_wall)
            self._cursors.begin(id, born_wall, found)
            self._moved.set()
        return found

    def _wants(self, record: Mapping[str, Any]) -> bool:
        return any(fnmatchcase(str(record.get("kind")), pattern) for pattern in self._kinds)

    async def _put_aside(self, id: InstanceId, record: Mapping[str, Any], problem: str) -> None:
        assert self._cursors is not None
        await self._cursors.put_aside(id, record, problem)

    async def _try_dead(self, letters: Sequence[Letter]) -> None:
        """Each once more, as an operator asked."""
        for key in letters:
            if self._cursors is None or key not in self._cursors.dead:
                continue
            id, cursor = key
            try:
                page = await self._source.page(id, max(cursor - 1, 0), limit=1)
            except WaError:
                continue  # it stays a dead letter
            record = next((one for one in page.records if one.get("cursor") == cursor), None)
            if record is None:
                self._results[Result.EXPIRED] += 1
                await self._cursors.forget(key)
                continue
            answer = await self.gate.try_once(id, record)
            if answer is Answer.TAKEN:
                await self._cursors.forget(key)
            elif answer is Answer.LATER:
                return

    async def _report(self, kind: str, sentence: str, bad: bool) -> None:
        text = f"webhook {self._declared.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        detail = {"webhook": self._declared.name}
        entry = JournalEntry(kind, text, Category.SYSTEM, None, time.time(), detail)
        await self._store.note(entry)
