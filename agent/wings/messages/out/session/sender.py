"""Sends what waits of one session: several chats at once, each chat in its order."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.errors import NotFound, StoreError
from agent.log import about
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.session.account import AccountGuard
from agent.wings.messages.out.session.ends import EndWriter
from agent.wings.messages.out.session.figures import OutboxCounts
from agent.wings.messages.out.session.hold import Hold, SessionHolds
from agent.wings.messages.out.session.one_try import send_one
from agent.wings.messages.out.session.pacing import PaceOf, Pacer
from agent.wings.messages.out.session.queue import SessionQueue, Waiting
from agent.wings.messages.out.session.sessions import Sessions
from agent.wings.messages.out.states import Pace
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Chats of a session that are sent to at the same time."""
HELD_MOST = 600.0
"""Seconds after which it is asked again whether a chat may be written to."""
LOOK_AGAIN = 2.0
"""Seconds after which a session that sends nothing is looked at again; its events wake earlier."""


@dataclass(slots=True)
class SessionSender:
    id: InstanceId
    sessions: Sessions
    store: OutboxStore
    files: OutboxFiles
    ended: Callable[[Waiting, End], None]
    """Hears of each end, after it is on the disk or cannot be taken back."""
    counts: OutboxCounts = field(default_factory=OutboxCounts)
    pace: Pace = field(default_factory=Pace)
    pace_of: PaceOf = field(default_factory=PaceOf)
    wall: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random
    queue: SessionQueue = field(default_factory=SessionQueue)
    impatient: dict[int, Waiting] = field(default_factory=dict)
    hold: Hold | None = None
    early: dict[str, list[str]] = field(default_factory=dict)
    """Acknowledgements by WhatsApp's id that came while a try was under way."""
    paced: Hold | None = None
    """Until when its pace lets nothing go."""
    _pacer: Pacer = field(init=False)
    _accounts: AccountGuard = field(init=False)
    ends: EndWriter = field(init=False)
    holds: SessionHolds = field(default_factory=SessionHolds)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tries: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._accounts = AccountGuard(self.id, self.store.ledger)
        self._pacer = Pacer(self.id, self.store.ledger, self.pace_of, self.wall, self.jitter)
        self.ends = EndWriter(
            *(self.id, self.store, self.files, self.queue, self.ended, self.counts, self.wall)
        )

    def add(self, waiting: Waiting) -> None:
        self.queue.add(waiting)
        if waiting.impatient:
            self.impatient[waiting.number] = waiting
        self._wake.set()

    def wake(self) -> None:
        """The session changed, perhaps for the better."""
        self.holds.forgive()
        self._wake.set()

    def drop(self, waiting: Waiting) -> None:
        """It has ended by another hand."""
        self.impatient.pop(waiting.number, None)
        self.queue.remove(waiting)
        self._wake.set()

    def move(self, step: float) -> None:
        """The machine's clock was set."""
        self.queue.move(step)
        self.holds.move(step)
        self._wake.set()

    def lose_patience(self, number: int) -> None:
        """Its client has gone with a 202."""
        if (waiting := self.impatient.pop(number, None)) is not None:
            waiting.impatient = False

    def note_ack(self, message_id: str, word: str) -> None:
        if self._tries and len(self.early) < 1000:
            self.early.setdefault(message_id, []).append(word)

    async def run(self) -> None:
        """Until nothing waits."""
        while self.queue.count or self._tries:
            self._wake.clear()
            now = self.wall()
            view = self._view()
            self.hold = self.holds.find(view, now)
            if view is not None and not self._tries:
                await self._look_up(view)
            self.paced = self._pacer.hold()
            waiting = self._next(now)
            if waiting is not None:
                if await self._admit(waiting):
                    task = asyncio.create_task(send_one(self, waiting), name=f"outbox of {self.id}")
                    self._tries.add(task)
                    task.add_done_callback(self._over)
                continue
            if not self.queue.count and not self._tries:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience(now)):
                    await self._wake.wait()
        self.hold = self.paced = None

    async def stop(self, within: float) -> None:
        """Let the tries under way end."""
        if self._tries:
            await asyncio.wait(self._tries, timeout=within)
        for task in self._tries:
            task.cancel()
        if self._tries:
            await asyncio.wait(self._tries)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tries.discard(task)
        if not self._tries:
            self.early.clear()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a try to send failed", exc_info=error, extra=about(self.id))
        self._wake.set()

    def _next(self, now: float) -> Waiting | None:
        if len(self._tries) >= (1 if self.holds.careful else AT_ONCE):
            return None
        if self.hold is None:
            return None if self.paced is not None else self.queue.take(now)
        # Its client is there and wants to hear the session's own refusal.
        return self.queue.take_among([one for one in self.impatient.values() if not one.held])

    def _patience(self, now: float) -> float:
        if self.hold is not None:
            return LOOK_AGAIN
        due = None if len(self._tries) >= AT_ONCE else self.queue.next_due()
        if due is not None and self.paced is not None:
            due = max(due, self.paced.until_wall or due)
        return LOOK_AGAIN * 30 if due is None else min(max(due - now, 0.01), LOOK_AGAIN * 30)

    def _view(self) -> InstanceView | None:
        try:
            return self.sessions.view(self.id)
        except NotFound:
            return None

    async def _look_up(self, view: InstanceView) -> None:
        """What the file knows of the session."""
        try:
            await self._accounts.check(view, self.ends.fail_for_other)
            await self._pacer.load(view)
        except StoreError as error:
            self.refuse(error.code, str(error))
            self.hold = self.holds.find(view, self.wall())

    async def _admit(self, waiting: Waiting) -> bool:
        """Whether the pace lets it go; its use is on the disk then. Otherwise its chat waits."""
        now = self.wall()
        try:
            hold = await self._pacer.take(waiting.chat)
            if hold is None:
                waiting.held = ""
                return True
            waiting.held = hold.sentence
        except StoreError as error:
            waiting.held = str(error)
            self.refuse(error.code, waiting.held)
            self.queue.put_back(waiting, waiting.due)
            return False
        self.queue.put_back(waiting, min(hold.until_wall or now, now + HELD_MOST))
        return False

    def refuse(self, code: str, sentence: str) -> None:
        self.holds.refuse(code, sentence, self.wall(), self.pace, self.jitter())
