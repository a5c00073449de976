"""What the outbox does by itself: it opens its file, runs the senders, and ends what has waited for
too long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.errors import NotFound, Refused, StoreError, TryLater, WaError
from agent.log import about
from agent.wings.messages.out.acks import AckNotes, KeptAcks
from agent.wings.messages.out.answer import End, Waiters
from agent.wings.messages.out.events import follow_events
from agent.wings.messages.out.expiries import Expiries
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.limits import HOUR, KEPT_HOURS, KEPT_MOST
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.session.figures import OutboxCounts
from agent.wings.messages.out.session.paces import Paces
from agent.wings.messages.out.session.queue import Waiting, waiting_of
from agent.wings.messages.out.session.sender import SessionSender
from agent.wings.messages.out.session.sessions import Sessions
from agent.wings.messages.out.states import UNKNOWN, UNKNOWN_OUTCOME, State
from agent.wings.messages.out.store import OutboxStore
from agent.wings.messages.out.taking_over import say_dropped, take_over
from agent.wings.messages.out.times import OutboxClock

log = logging.getLogger(__name__)

OPEN_AGAIN = 10.0
TRIES_END_WITHIN = 5.0
"""Seconds that tries under way are given at the agent's stop."""
TICK = 1.0
WIPE_EVERY = 5.0


class Running:
    def __init__(
        self,
        around: Around,
        sessions: Sessions,
        path: Path,
        files: OutboxFiles,
    ) -> None:
        self.senders: dict[InstanceId, SessionSender] = {}
        """Of each session that has something to send."""
        self.waiters = Waiters()
        self.files = files
        self.counts = OutboxCounts()
        self.paces = Paces(around)
        self.bytes = 0
        """Of all that waits."""
        self._around = around
        self._sessions = sessions
        self._path = path
        self.clock = OutboxClock()
        self._wall = self.clock.now
        self._store: OutboxStore | None = None
        self._trouble: WaError = TryLater(
            "cannot take the message: the outbox is being opened; try again", code="starting"
        )
        self._opened = asyncio.Event()
        self._tasks: dict[InstanceId, asyncio.Task[None]] = {}
        self._expiries = Expiries()
        self._acks = AckNotes(lambda: self._store)
        self._unwiped = False

    async def opened(self, within: float) -> OutboxStore:
        try:
            async with asyncio.timeout(within):
                await self._opened.wait()
        except TimeoutError:
            raise self._trouble from None
        if self._store is None:
            raise self._trouble
        return self._store

    async def run(self) -> None:
        """Until the agent stops. A file that cannot be opened ends no session: messages are
        refused until it can."""
        self._store = await self._open()
        self._opened.set()
        try:
            async with asyncio.TaskGroup() as group:
                store = self._store
                group.create_task(
                    _keep_on(partial(follow_events, self, self._around.bus, self._acks)),
                    name="outbox events",
                )
                group.create_task(_keep_on(self._acks.run), name="outbox acks")
                kept = KeptAcks(self._around.messages)
                group.create_task(_keep_on(lambda: kept.run(store)), name="outbox kept acks")
                group.create_task(_keep_on(partial(self.paces.run, store.ledger)), name="people")
                group.create_task(_keep_on(lambda: self._tick(store)), name="outbox clock")
        finally:
            await self._stop(self._store)

    async def _open(self) -> OutboxStore:
        while True:
            try:
                store = await OutboxStore.open(self._path, now_wall=self._wall)
                await self._bring_clock(store)
                rows = await take_over(store, self._around, self.files, self._wall())
            except WaError as error:
                if str(error) != str(self._trouble):
                    log.error("messages to send are refused: %s", error)
                self._trouble = error
                self._opened.set()
                await asyncio.sleep(OPEN_AGAIN)
                continue
            self._unwiped = True
            for row in rows:
                self._add(store, row, impatient=False)
            return store

    async def _stop(self, store: OutboxStore) -> None:
        self._store = None
        self._trouble = TryLater("cannot take the message: the agent is stopping", code="stopping")
        for task in self._tasks.values():
            task.cancel()
        ends = [sender.stop(TRIES_END_WITHIN) for sender in self.senders.values()]
        await asyncio.gather(*ends, *self._tasks.values(), return_exceptions=True)
        self.waiters.tell_all(End())
        self.senders.clear()
        self._tasks.clear()
        if self._unwiped:
            with suppress(StoreError):
                await store.empty_log()
        await store.close()

    def add(self, row: OutMessage, *, impatient: bool) -> bool:
        """False: the agent is stopping, and the next one sends it."""
        if self._store is None:
            return False
        self._add(self._store, row, impatient=impatient)
        return True

    def _add(self, store: OutboxStore, row: OutMessage, *, impatient: bool) -> None:
        waiting = waiting_of(row, impatient=impatient)
        self.bytes += waiting.size
        self._expiries.add(row.instance, waiting)
        sender = self.senders.get(row.instance)
        if sender is None:
            sender = self.senders[row.instance] = SessionSender(
                *(row.instance, self._sessions, store, self.files, self._ended),
                counts=self.counts,
                pace_of=self.paces.of,
                wall=self._wall,
            )
        sender.add(waiting)
        if row.instance not in self._tasks:
            run = self._run_sender(sender)
            self._tasks[row.instance] = asyncio.create_task(run, name=f"outbox {row.instance}")

    async def _run_sender(self, sender: SessionSender) -> None:
        while sender.queue.count:
            try:
                await sender.run()
            except Exception:
                log.exception("internal error of an outbox's sender", extra=about(sender.id))
                await asyncio.sleep(OPEN_AGAIN)
        del self._tasks[sender.id]
        if self.senders.get(sender.id) is sender:
            del self.senders[sender.id]

    def _ended(self, waiting: Waiting, end: End) -> None:
        self.bytes -= waiting.size
        self._unwiped = True
        self.waiters.tell(waiting.id, end)

    def find(self, row: OutMessage) -> Waiting | None:
        sender = self.senders.get(row.instance)
        queued = () if sender is None else sender.queue
        return next((waiting for waiting in queued if waiting.number == row.number), None)

    async def cancel(self, id: InstanceId, waiting: Waiting) -> None:
        """One that may be out is no cancelled one: who believes that sends it again."""
        state, sentence = State.CANCELLED, "cancelled by an operator"
        if waiting.may_be_out:
            state = State.FAILED
            sentence += "; an earlier try may have sent it"
        if not await self._end(id, waiting, state, sentence):
            raise Refused(
                f"cannot cancel {waiting.id}: it is being sent at this moment", code="being_sent"
            )

    async def _end(self, id: InstanceId, waiting: Waiting, state: State, sentence: str) -> bool:
        """End one that is not being sent; False: it is."""
        sender, store = self.senders.get(id), self._store
        if sender is None or store is None or not sender.queue.reserve(waiting):
            return False
        unsure = state is State.FAILED
        # Its Idempotency-Key stays its own: a client's repeat of before sends it no more.
        told = {"reason": UNKNOWN if unsure else state.value, "sentence": sentence}
        try:
            await store.end(waiting.number, state, changed_wall=self._wall(), **told)
        except BaseException:
            sender.queue.put_back(waiting, waiting.due)
            raise
        await asyncio.to_thread(self.files.remove, waiting.file)
        sender.drop(waiting)
        self.counts.note(id, state, told["reason"], waiting.accepted_wall, self._wall())
        code = UNKNOWN_OUTCOME if unsure else state.value
        self._ended(waiting, End(error=TryLater(f"cannot send {id}: {sentence}", code=code)))
        return True

    async def forget(self, id: InstanceId, deleted_wall: float) -> None:
        """The instance is deleted; another one of that name may have been made since."""
        store, born = self._store, 0.0
        self.counts.forget(id)
        with suppress(NotFound):
            made = self._sessions.view(id).instance.created_wall
            born = made if made > deleted_wall else 0.0
        if store is None:
            return
        if (sender := self.senders.get(id)) is not None:
            gone = [each for each in sender.queue if each.born != born]
            if gone:
                await say_dropped(self._around.store, id, len(gone))
            for waiting in gone:
                sender.drop(waiting)
                error = NotFound(f"cannot send {waiting.id}: {id} was deleted", field="id")
                self._ended(waiting, End(error=error))
        try:
            files = await store.forget_instance(id, born)
        except StoreError as error:
            log.error("the messages of a deleted instance go later: %s", error, extra=about(id))
            return
        self._unwiped = True
        await asyncio.to_thread(self.files.remove, *files)

    async def _tick(self, store: OutboxStore) -> None:
        wiped = forgot = 0.0
        while True:
            try:
                await self._follow_clock(store)
                now = self._wall()
                await self._expiries.end_due(now, self._end)
                if self._unwiped and abs(now - wiped) >= WIPE_EVERY:
                    self._unwiped, wiped = False, now
                    await store.empty_log()
                if abs(now - forgot) >= HOUR:
                    forgot = now
                    await store.forget_ended(now - KEPT_HOURS * HOUR, KEPT_MOST)
            except StoreError as error:
                log.error("the outbox goes on: %s", error)
                await asyncio.sleep(OPEN_AGAIN)
            await asyncio.sleep(TICK)

    async def _bring_clock(self, store: OutboxStore) -> None:
        try:
            await self.clock.open(store.writer)
        except WaError:
            await store.close()
            raise

    async def _follow_clock(self, store: OutboxStore) -> None:
        if not (step := await self.clock.follow(store.writer)):
            return
        log.warning("the machine's clock was set by %+.0f s; messages wait as long as before", step)
        self._expiries.move(step)
        for sender in self.senders.values():
            sender.move(step)


async def _keep_on(work: Callable[[], Awaitable[None]]) -> None:
    """An error of the outbox's own ends no session."""
    while True:
        try:
            await work()
        except StoreError as error:  # the disk is full, or read only
            log.error("the outbox tries again in %g s: %s", OPEN_AGAIN, error)
            await asyncio.sleep(OPEN_AGAIN)
        except Exception:
            log.exception("internal error of the outbox; it goes on")
            await asyncio.sleep(OPEN_AGAIN)
