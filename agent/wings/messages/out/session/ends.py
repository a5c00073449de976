"""Writes down how messages of a session ended."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.core.model import InstanceId
from agent.core.words import OTHER_ACCOUNT
from agent.errors import Refused, StoreError
from agent.log import about
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.session.figures import OutboxCounts
from agent.wings.messages.out.session.queue import SessionQueue, Waiting
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

WRITE_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class EndWriter:
    id: InstanceId
    store: OutboxStore
    files: OutboxFiles
    queue: SessionQueue
    ended: Callable[[Waiting, End], None]
    counts: OutboxCounts
    wall: Callable[[], float]

    async def fail_for_other(self, born: float) -> None:
        """All that waits of the instance that was made then."""
        words = "its session was paired with another account meanwhile"
        error = Refused(f"cannot send {self.id}: {words}", code=OTHER_ACCOUNT)
        told = {"reason": OTHER_ACCOUNT, "sentence": words, "repeats": ""}
        for waiting in [each for each in self.queue if each.born == born]:
            if self.queue.reserve(waiting):
                await self.write(waiting, State.FAILED, End(error=error), **told)

    async def write(self, waiting: Waiting, state: State, end: End, **columns: Any) -> None:
        """For as long as it takes: who waits hears of it at once."""
        told = False
        while True:
            try:
                await self.store.end(waiting.number, state, changed_wall=self.wall(), **columns)
            except StoreError as error:
                if not told:
                    log.error("an end is written later: %s", error, extra=about(self.id))
                    self.ended(waiting, end)
                told = True
                await asyncio.sleep(WRITE_AGAIN)
            else:
                break
        await asyncio.to_thread(self.files.remove, waiting.file)
        self.queue.remove(waiting)
        reason = str(columns.get("reason", ""))
        self.counts.note(self.id, state, reason, waiting.accepted_wall, self.wall())
        if not told:
            self.ended(waiting, end)
