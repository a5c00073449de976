"""Carries what one session keeps to one webhook, until it has no more; the next word of its worker
begins that again."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.model import InstanceId
from agent.errors import NotFound, Refused, StoreError, WaError
from agent.log import about
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.webhooks.messages.chats import Chats
from agent.wings.webhooks.messages.cursors import MessageCursors, cursor_before
from agent.wings.webhooks.messages.gate import TargetGate

log = logging.getLogger(__name__)

PAGE, FEW = 50, 25
"""Records that are read at once, and those of a session that wait while more are read."""
GAP = "message_gap"
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Way:
    """What all sessions of one webhook share."""

    consumer: str
    source: KeptMessages
    gate: TargetGate
    cursors: MessageCursors
    moved: asyncio.Event
    """A cursor is not saved yet."""
    reads: asyncio.Semaphore
    lanes: asyncio.Semaphore
    wants: Callable[[Mapping[str, Any]], bool]


class SessionCarrier:
    def __init__(self, id: InstanceId, way: Way, group: asyncio.TaskGroup) -> None:
        self._id = id
        self._way = way
        self._group = group
        self._chats: Chats | None = None
        """What is on its way."""
        self._again = False
        """There may be more than was looked at."""
        self._task: asyncio.Task[None] | None = None

    @property
    def oldest_wall(self) -> float | None:
        """When the oldest record that is tried now was kept."""
        tried = None if self._chats is None else self._chats.oldest
        return None if tried is None else float(tried.get("kept") or time.time())

    def begin(self) -> None:
        self._again = True
        if self._chats is not None:
            self._chats.wake()
        if self._task is None or self._task.done():
            name = f"{self._way.consumer}: {self._id}"
            self._task = self._group.create_task(self._serve(), name=name)

    async def settled(self) -> None:
        """Tell its worker up to where it need keep nothing for this webhook."""
        saved = self._way.cursors.saved(self._id)
        await self._way.source.settled(self._way.consumer, self._id, saved)

    async def _serve(self) -> None:
        pause = 0.0
        while self._again:
            self._again = False
            try:
                await self._carry()
                pause = 0.0
            except (Refused, NotFound):
                pass  # its worker does not run, or keeps nothing
            except Exception as error:
                # Of one session: the others go on.
                self._complain(error)
                self._again = True
                pause = min(max(pause * 2, 1.0), LONGEST_PAUSE)
                await asyncio.sleep(pause)
            await self.settled()

    def _complain(self, error: Exception) -> None:
        if isinstance(error, ExceptionGroup):
            for each in error.exceptions:
                self._complain(each)
            return
        bad = not isinstance(error, WaError) or isinstance(error, StoreError)
        level = logging.ERROR if bad else logging.DEBUG
        log.log(level, "%s: %s", self._way.consumer, error, extra=about(self._id))

    async def _carry(self) -> None:
        """Until it has no more and all is settled. What ends the reading ends no post."""
        async with self._way.reads:
            at = await self._find_cursor()
        failed: WaError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                chats = self._chats = Chats(group, self._deliver, at, self._note_settled)
                more = True
                while failed is None:
                    if (more or self._again) and chats.under_way <= FEW:
                        self._again = False
                        try:
                            more = await self._read_page(chats)
                        except WaError as error:
                            failed = error
                    elif chats.under_way:
                        await chats.change()
                    else:
                        break
        finally:
            self._chats = None
        if failed is not None:
            raise failed

    async def _read_page(self, chats: Chats) -> bool:
        """Whether there is more."""
        async with self._way.reads:
            page = await self._way.source.page(self._id, chats.read_to, limit=PAGE)
            for record in page.records:
                if not self._way.wants(record):
                    continue
                # A gap stands between what came before and after it.
                alone = record.get("kind") == GAP
                if alone:
                    await chats.until(0)
                chats.add(record)
                if alone:
                    await chats.until(0)
            chats.read_to = page.next
            self._note_settled()
            await chats.until(FEW)
        return page.more

    async def _deliver(self, record: Mapping[str, Any]) -> None:
        async with self._way.lanes:
            await self._way.gate.settle(self._id, record)

    def _note_settled(self) -> None:
        if self._chats is not None and self._way.cursors.move(self._id, self._chats.settled):
            self._way.moved.set()

    async def _find_cursor(self) -> int:
        cursors, source = self._way.cursors, self._way.source
        born_wall = source.created_wall(self._id)
        found = cursors.find(self._id, born_wall)
        if found is None:
            found = await cursor_before(source, self._id, cursors.begun_wall)
            cursors.begin(self._id, born_wall, found)
            self._way.moved.set()
        return found
