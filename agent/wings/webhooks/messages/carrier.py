"""Carries what arrives in sessions to one webhook: in order within a chat, and no session waits for
another one's worker. It looks when a worker kept more or was connected, not on a clock."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agent.core.model import InstanceId
from agent.errors import StoreError, WaError
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.webhooks.courier import AFTER_FAULT
from agent.wings.webhooks.deliveries import Answer, DeadLetter, Result
from agent.wings.webhooks.messages.cursors import Letter, MessageCursors
from agent.wings.webhooks.messages.gate import TargetGate
from agent.wings.webhooks.messages.one_session import GAP, SessionCarrier, Way
from agent.wings.webhooks.settings import consumer_of, gets_messages_of, message_kinds
from agent.wings.webhooks.target import Target
from agent.wings.webhooks.webhook import Webhook

log = logging.getLogger(__name__)

READS, LANES = 32, 8
"""Sessions with more than a few in memory, and posts under way, of one webhook at most."""
SAVE_EVERY = 0.5
"""Seconds of deliveries, at most, that a kill lets be sent twice."""


class MessageCarrier:
    """`run` carries; the rest never waits."""

    def __init__(self, webhook: Webhook, source: KeptMessages) -> None:
        self._declared = webhook.declared
        self._store = webhook.store
        self._source = source
        self._results = webhook.results
        self._kinds = (*message_kinds(webhook.declared), GAP)
        self._target = Target(webhook, connections=LANES)
        self.gate = TargetGate(webhook, self._target, self._put_aside)
        self._cursors: MessageCursors | None = None
        self._sessions: dict[InstanceId, SessionCarrier] = {}
        self._moved = asyncio.Event()
        self._way: Way | None = None
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
        tried = (its.oldest_wall for its in self._sessions.values())
        return min((wall for wall in tried if wall is not None), default=None)

    def dead(self) -> Sequence[DeadLetter]:
        return tuple(self._cursors.dead.values()) if self._cursors else ()

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
                self._way = Way(
                    self.consumer,
                    self._source,
                    self.gate,
                    cursors,
                    self._moved,
                    asyncio.Semaphore(READS),
                    asyncio.Semaphore(LANES),
                    self._wants,
                )
                self._group.create_task(self._save(cursors), name=f"{self.consumer}: cursors")
                for id in there:
                    self._begin(id)
                while True:
                    for id in await changes.next():
                        self._begin(id)
        finally:
            self._group = self._way = None
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
                if its := self._sessions.get(id):
                    self._group.create_task(its.settled(), name=f"{self.consumer}: {id} settled")
            await asyncio.sleep(SAVE_EVERY)

    def _begin(self, id: InstanceId) -> None:
        if self._way is None or self._group is None or not gets_messages_of(self._declared, id):
            return
        if id not in self._sessions:
            self._sessions[id] = SessionCarrier(id, self._way, self._group)
        self._sessions[id].begin()

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
