"""Sends what waits of one session: several chats at once, each chat in its order."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.api.handlers.messages import explain_refusal
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.engines.catalog import entry_of
from agent.errors import EngineError, NotFound, StoreError, TryLater, WaError
from agent.failpoint import failpoint
from agent.log import about
from agent.wings.messages.out.about import complete
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.ends import EndWriter
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.queue import SessionQueue, Waiting
from agent.wings.messages.out.session.account import AccountGuard
from agent.wings.messages.out.session.figures import OutboxCounts
from agent.wings.messages.out.session.hold import Hold, SessionHolds
from agent.wings.messages.out.session.pacing import PaceOf, Pacer
from agent.wings.messages.out.states import (
    UNKNOWN,
    UNKNOWN_OUTCOME,
    Judgement,
    Pace,
    State,
    after_ack,
    is_time_lock,
    judge,
    next_try,
)
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Chats of a session that are sent to at the same time."""
HELD_MOST = 600.0
"""Seconds after which it is asked again whether a chat may be written to."""
LOOK_AGAIN = 2.0
"""Seconds after which a session that sends nothing is looked at again; its events wake earlier."""
MOST_LOOKS = 4
"""Looks for a message whose try may have sent it; then it has failed, and nobody knows."""


class Sessions(Protocol):
    def view(self, id: InstanceId, /) -> InstanceView: ...

    async def find(
        self, id: InstanceId, chat: str, message_ids: Sequence[str], /
    ) -> Mapping[str, Mapping[str, Any]]: ...

    async def ask_sent(
        self, id: InstanceId, message: Mapping[str, Any], begun_wall: float, /
    ) -> Mapping[str, Any]: ...

    async def send(
        self, id: InstanceId, message: Mapping[str, Any], file: Path | None = None, /
    ) -> Mapping[str, Any]: ...


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
    _ends: EndWriter = field(init=False)
    _holds: SessionHolds = field(default_factory=SessionHolds)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tries: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._accounts = AccountGuard(self.id, self.store.ledger)
        self._pacer = Pacer(self.id, self.store.ledger, self.pace_of, self.wall, self.jitter)
        self._ends = EndWriter(
            *(self.id, self.store, self.files, self.queue, self.ended, self.counts, self.wall)
        )

    def add(self, waiting: Waiting) -> None:
        self.queue.add(waiting)
        if waiting.impatient:
            self.impatient[waiting.number] = waiting
        self._wake.set()

    def wake(self) -> None:
        """The session changed, perhaps for the better."""
        self._holds.forgive()
        self._wake.set()

    def drop(self, waiting: Waiting) -> None:
        """It has ended by another hand."""
        self.impatient.pop(waiting.number, None)
        self.queue.remove(waiting)
        self._wake.set()

    def move(self, step: float) -> None:
        """The machine's clock was set."""
        self.queue.move(step)
        self._holds.move(step)
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
            self.hold = self._holds.find(view, now)
            if view is not None and not self._tries:
                await self._look_up(view)
            self.paced = self._pacer.hold()
            waiting = self._next(now)
            if waiting is not None:
                if await self._admit(waiting):
                    task = asyncio.create_task(self._try(waiting), name=f"outbox of {self.id}")
                    self._tries.add(task)
                    task.add_done_callback(self._over)
                continue
            if not self.queue.count and not self._tries:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience(now)):
                    await self._wake.wait()
        self.hold = self.paced = None

    async def settle(self, within: float) -> None:
        """Wait for the tries that are under way now."""
        if self._tries:
            await asyncio.wait(set(self._tries), timeout=within)

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
        if len(self._tries) >= (1 if self._holds.careful else AT_ONCE):
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
            await self._accounts.check(view, self._ends.fail_for_other)
            await self._pacer.load(view)
        except StoreError as error:
            self._refuse(error.code, str(error))
            self.hold = self._holds.find(view, self.wall())

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
            self._refuse(error.code, waiting.held)
            self.queue.put_back(waiting, waiting.due)
            return False
        self.queue.put_back(waiting, min(hold.until_wall or now, now + HELD_MOST))
        return False

    def _refuse(self, code: str, sentence: str) -> None:
        self._holds.refuse(code, sentence, self.wall(), self.pace, self.jitter())

    async def _try(self, waiting: Waiting) -> None:
        try:
            view = self.sessions.view(self.id)
            entry = entry_of(view.instance.engine)
            repeats, looks = entry.repeats, entry.settles and waiting.may_be_out
            message = await self.store.content(waiting.number)
            if message is None or view.instance.created_wall != waiting.born:
                self.queue.remove(waiting)
                return
            if not looks:
                await self._note_begun(waiting)
        except (StoreError, NotFound) as error:
            self._refuse(error.code, str(error))
            self.queue.put_back(waiting, self.wall())
            return
        failpoint("outbox_begun")
        path = self.files.folder / waiting.file if waiting.file else None
        try:
            message = await complete(self.id, message, self.store, self.sessions.find)
            found = looks and await self._find(waiting, message)
            answer = found or await self.sessions.send(self.id, message, path)
        except WaError as error:
            await self._failed(waiting, error, view.instance.engine, repeats=repeats)
        except Exception as error:
            log.exception("internal error: it may have sent a message", extra=about(self.id))
            unsure = TryLater(f"internal error: {type(error).__name__}", code=UNKNOWN_OUTCOME)
            await self._failed(waiting, unsure, view.instance.engine, repeats=repeats)
        else:
            failpoint("outbox_sent")
            await self._sent(waiting, answer)

    async def _note_begun(self, waiting: Waiting) -> None:
        waiting.begun_wall = self.wall()
        await self.store.change(waiting.number, begun_wall=waiting.begun_wall)

    async def _find(self, waiting: Waiting, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What became of an earlier try; None: it surely was not sent."""
        answer = await self.sessions.ask_sent(self.id, message, waiting.begun_wall)
        if answer.get("outcome") == "sent":
            return answer
        waiting.may_be_out = False
        await self._note_begun(waiting)
        return None

    async def _sent(self, waiting: Waiting, answer: Mapping[str, Any]) -> None:
        self._holds.forgive(well=True)
        id = answer.get("id")
        message_id = id[:200] if isinstance(id, str) else ""
        state = State.SENT
        for word in self.early.pop(message_id[:64], ()):
            state = after_ack(state, word)
        told = {"message_id": message_id, "answer": dict(answer), "reason": "", "sentence": ""}
        await self._end(waiting, state, End(answer), **told)
        failpoint("outbox_noted")

    async def _failed(
        self, waiting: Waiting, error: WaError, engine: str, *, repeats: bool
    ) -> None:
        shown = explain_refusal(engine, error) if isinstance(error, EngineError) else error
        tries = waiting.tries + 1
        found = judge(shown.code, str(error), tries)
        told: dict[str, Any] = {"reason": shown.code, "sentence": str(shown), "tries": tries}
        if found is Judgement.UNKNOWN and not repeats and not self._looks_again(waiting, engine):
            await self._end(waiting, State.FAILED, End(error=shown), **{**told, "reason": UNKNOWN})
            return
        if found is Judgement.UNKNOWN:
            waiting.may_be_out = True
            told["begun_wall"] = waiting.begun_wall = waiting.begun_wall or self.wall()
        elif waiting.may_be_out and found is Judgement.FINAL:
            # An earlier try may have sent it all the same.
            words = f"an earlier try may have sent it; the last one: {shown}"
            unsure = TryLater(words, code=UNKNOWN_OUTCOME)
            told |= {"reason": UNKNOWN, "sentence": words}
            await self._end(waiting, State.FAILED, End(error=unsure), **told)
            return
        elif found is Judgement.FINAL or (waiting.impatient and not waiting.may_be_out):
            # It surely did not go out: its Idempotency-Key may be used again.
            told["repeats"] = ""
            await self._end(waiting, State.FAILED, End(error=shown), **told)
            return
        elif not waiting.may_be_out:
            told["begun_wall"] = 0.0
        await self._again(waiting, found, str(error), told)

    def _looks_again(self, waiting: Waiting, engine: str) -> bool:
        """The try may have sent it, or the last look did not find it."""
        waiting.looks += waiting.may_be_out
        return entry_of(engine).settles and waiting.looks < MOST_LOOKS

    async def _again(
        self, waiting: Waiting, found: Judgement, words: str, told: dict[str, Any]
    ) -> None:
        due = now = self.wall()
        if found is Judgement.SESSION:
            del told["tries"]
            if is_time_lock(told["reason"], words):
                self._holds.lock(now)
            self._refuse(told["reason"], told["sentence"])
        else:
            waiting.tries = told["tries"]
            # A look holds its chat: the next one does not wait for longer because of earlier tries.
            count = waiting.looks + 1 if found is Judgement.UNKNOWN else waiting.tries
            due = now + next_try(count, self.pace.longest, self.pace, self.jitter())
            told["not_before_wall"] = due
        try:
            await self.store.change(waiting.number, changed_wall=now, **told)
        except StoreError as error:
            log.error("cannot note a try: %s", error, extra=about(self.id))
        self.queue.put_back(waiting, due)

    async def _end(self, waiting: Waiting, state: State, end: End, **columns: Any) -> None:
        self.impatient.pop(waiting.number, None)
        await self._ends.write(waiting, state, end, **columns)
