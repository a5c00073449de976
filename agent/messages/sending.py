"""The agent's side of messages to send: it takes them onto the disk, runs one sender for each
session, and ends what waited for too long."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent import clock, files, log
from agent.config.config import Config
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.session import wall_text
from agent.deliver.bus import EventBus, EventFilter
from agent.engines import tasks, whatsapp
from agent.errors import NotFound, Refused, StoreError, TryLater, WaError
from agent.messages import media, settings
from agent.messages.outbox import NAME, Mark, Outbox, OutMessage, hash_of
from agent.messages.outcomes import LEFT, MOST_TRIES, UNSURE, WAITING, State, judge
from agent.messages.reader import LONGEST_PAGE, Reader
from agent.messages.sender import End, Limits, SessionSender, Waiting, account_of
from agent.metrics.exporter import Family, Row
from agent.store.database import Store
from agent.supervise.assemble import Supervisor

FOLDER = "outbox"
MARK = "outbox.mark"
"""The fact of the agent's database that knows the mark of the outbox."""
OPEN_AGAIN, TIDY_EVERY, MARK_EVERY = 10.0, 5.0, 60.0
EVENTS = EventFilter(kinds=frozenset({"ack", "status", "verdict", "deleted"}))
_CANNOT = "cannot take the message"
ENDS = (State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED, State.UNKNOWN)


class TooManyWait(TryLater):
    code, http = "outbox_full", 429


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that is kept, for the answer to its client."""

    row: OutMessage
    again: bool
    """True if an earlier request with its Idempotency-Key made it."""
    waiting: Waiting | None
    """The message while it waits; None: it has ended, or the agent stops."""


@dataclass(slots=True)
class Counts:
    """Counts of a session since the agent's start."""

    ended: Counter[State] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sent_wall: float | None = None


class Sending:
    def __init__(
        self, folder: Path, sessions: Supervisor, store: Store, bus: EventBus, reader: Reader
    ) -> None:
        self.limits = Limits()
        self.senders: dict[InstanceId, SessionSender] = {}
        """The sender of each session that has something to send."""
        self.counts: dict[InstanceId, Counts] = {}
        self._path, self.files = folder / NAME, media.OutFiles(folder / FOLDER)
        self._sessions, self._store, self._bus, self._reader = sessions, store, bus, reader
        self._outbox: Outbox | None = None
        self._trouble: WaError = TryLater(f"{_CANNOT}: the outbox is being opened", code="starting")
        self._opened = asyncio.Event()
        self._tasks: dict[InstanceId, asyncio.Task[None]] = {}
        self.dropped: dict[InstanceId, int] = {}
        """Messages that a deletion ended, until it was answered."""
        self.lost = self.refused = ""
        """For people: the part of the outbox that was lost before this agent opened it; why none
        is opened."""
        self._untidy = True
        """True if a message came or ended since the file's journal was emptied of contents."""

    def take_on(self, config: Config) -> None:
        """Take on settings that were read."""
        (self.limits.messages,) = settings.MESSAGES.rows(config)
        (self.limits.pace,) = settings.PACE.rows(config)

    async def run(self) -> None:
        """Until the agent stops. A file that cannot be opened ends no session: messages are
        refused until it can. One that is found damaged is opened again, and set aside by that."""
        while True:
            outbox = await self._open()
            works = (partial(self._events, outbox), partial(self._acks, outbox))
            both = [asyncio.create_task(_keep_on(work)) for work in works]
            try:
                await _keep_on(partial(self._tick, outbox))
            finally:
                await self._close(outbox, both)

    async def accept(
        self,
        id: InstanceId,
        message: Mapping[str, Any],
        *,
        expires_in: float | None = None,
        whose: Sequence[str] = (),
        digest: str = "",
        wait: float = 0.0,
    ) -> Taken:
        """Return when the message is on the disk. `whose`: the caller's name, the session and the
        Idempotency-Key; `digest`: of that request."""
        outbox = await self.ready()
        view, name = self._sessions.view(id), f"out_{secrets.token_hex(12)}"
        born, now = view.instance.created_wall, outbox.now()
        # An engine that can derives WhatsApp's id from `key`: sent again it is the same message.
        content = {"key": hash_of((name,), born), **message}
        content["to"] = whatsapp.check_receiver(str(content["to"]))
        chat = lane = whatsapp.chat_of(content["to"])
        if "@lid" in chat:  # both names of a person keep one order
            with suppress(WaError):
                other = await self._reader.ask(id, "messages_name", {"chat": chat})
                lane = whatsapp.chat_of(str(other.get("name") or "")) or chat
        expires = expires_in or self.limits.messages.expires_hours * 3600
        if apart := content.pop("content", ""):
            content["sha256"] = await asyncio.to_thread(self.files.write, name, apart)
        files.failpoint("outbox_file")
        text = json.dumps(content, separators=(",", ":"))
        new = OutMessage(
            *(0, name, id, born, account_of(view), lane, chat, str(content["type"])),
            *(State.ACCEPTED, now, now, now + expires),
            repeats=hash_of(whose, born) if whose else "",
            digest=digest,
            file=name if apart else "",
            size=len(text) + len(apart) // 4 * 3,
        )
        waiting = None

        def committed(row: OutMessage, again: bool) -> None:
            nonlocal waiting
            if not again and self._outbox is outbox:  # else the next agent sends it
                waiting = self.add(outbox, row, impatient=wait > 0)
            elif again and (sender := self.senders.get(row.instance)):
                waiting = sender.waiting.get(row.number)
                if waiting is not None:  # a 202 holds whatever the first request waits for
                    waiting.impatient &= wait > 0

        try:
            row, again = await outbox.take(new, text, committed)
        except WaError:
            await asyncio.to_thread(self.files.remove, new.file)
            raise
        if again:
            await asyncio.to_thread(self.files.remove, new.file)
        files.failpoint("outbox_accepted")
        return Taken(row, again, waiting)

    async def answer(self, taken: Taken, seconds: float) -> tuple[int, Mapping[str, Any]]:
        """Status and body for the client, after `seconds` at most; raises the message's error."""
        row, waiting, end = taken.row, taken.waiting, None
        if waiting is not None and (seconds or (taken.again and waiting.ending is not None)):
            waiting.clients += 1
            try:
                await tasks.until_set(waiting.over, seconds if waiting.ending is None else 0)
            finally:  # no refusal of a try ends a message whose clients have gone
                waiting.clients -= 1
                waiting.impatient &= bool(waiting.clients)
            end = waiting.ending
        if isinstance(end, WaError):
            raise end
        row = end or row
        if row.state in LEFT:
            return 200, {**self._show(row), "outcome": "sent"}
        if row.state in WAITING:
            look = {"state": f"/api/instance/{row.instance}/outbox/{row.id}"}
            return 202, {**self._show(row), "look": look}
        if row.state in (State.CANCELLED, State.EXPIRED):
            why = f"the message of this Idempotency-Key is {row.state.value} ({row.sentence})"
            words = f"cannot send it: {why}; another message needs another key"
            raise Refused(words, field="Idempotency-Key", code=row.state.value)
        words = "cannot tell whether the first request with this Idempotency-Key sent the message"
        more = f"({row.sentence}); check it before you send it with another key"
        raise TryLater(f"{words} {more}", code=UNSURE)

    async def page(
        self, id: InstanceId, state: str = "", before: str = "", limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return rows as the API shows them, newest first; `before`: id of the last one seen."""
        outbox = await self.ready()
        number = (await self._find(outbox, id, before)).number if before else 0
        return [self._show(row) for row in await outbox.page(id, state, number, limit)]

    async def show(self, id: InstanceId, message: str) -> dict[str, Any]:
        return self._show(await self._find(await self.ready(), id, message))

    async def cancel(self, id: InstanceId, message: str) -> dict[str, Any]:
        """Cancel a message; one that may be out is `unknown`: its client would send it again."""
        row = await self._find(await self.ready(), id, message)
        sender = self.senders.get(id)
        if sender is None or (waiting := sender.waiting.get(row.number)) is None:
            why = f"cannot cancel {message}: it is {row.state.value} already"
            raise Refused(why, code="message_ended")
        if not await sender.take_back(waiting, State.CANCELLED, "cancelled by an operator"):
            why = f"cannot cancel {message}: it is being sent at this moment"
            raise Refused(why, code="being_sent")
        return await self.show(id, message)

    def waiting(self, id: InstanceId) -> Mapping[str, Any]:
        """Return what waits, for a session's JSON; {} = nothing. No number until the file opens."""
        if self._outbox is None:
            return {"waiting": None, "reason": self._trouble.code, "sentence": str(self._trouble)}
        sender = self.senders.get(id)
        if sender is None or (oldest := sender.oldest()) is None:
            return {}
        hold = sender.hold or sender.of_one()
        return {
            "waiting": len(sender.waiting),
            "oldest": wall_text(oldest),
            "reason": hold.code,
            "sentence": hold.sentence,
            "until": wall_text(hold.until_wall),
        }

    def failed(self, id: InstanceId) -> int:
        """Return the number of failed messages, with those that may have gone out."""
        ended = self.counts.get(id, Counts()).ended
        return ended[State.FAILED] + ended[State.UNKNOWN]

    def ended(self, id: InstanceId) -> Mapping[str, Any]:
        counts = self.counts.get(id, Counts())
        return {
            **{state.value: counts.ended[state] for state in ENDS},
            "reasons": dict(counts.reasons),
            "last_sent": wall_text(counts.sent_wall),
        }

    def families(self, sessions: Iterable[InstanceId]) -> Iterator[Family]:
        """Yield the metrics of messages, also of those kept that arrived."""
        kept = self._reader.figures().items()
        unread: list[Row] = [({"session": id}, figures["waiting"]) for id, figures in kept]
        yield Family("wa_messages_waiting", "Kept records that wait for a reader.", unread)
        senders = ((id, self.senders.get(id)) for id in (sessions if self._outbox else ()))
        unsent: list[Row] = [({"session": id}, len(it.waiting) if it else 0) for id, it in senders]
        yield Family("wa_outbox_waiting", "Messages that wait to be sent, by session.", unsent)

    # Taking

    async def ready(self) -> Outbox:
        await tasks.until_set(self._opened, 10.0)  # just after the agent's start
        if self._outbox is None:
            raise self._trouble
        return self._outbox

    def _must_fit(self, new: OutMessage, count: int, size: int) -> None:
        """Raise if there is no room. `count`, `size`: of messages taken that no sender has yet."""
        id, sender, limits = new.instance, self.senders.get(new.instance), self.limits.messages
        self._sessions.view(id)  # deleted, or gone to another machine: none is taken after that
        count += len(sender.waiting) if sender is not None else 0
        if count >= limits.outbox_most:
            why = f"cannot take the message: {count} messages of {id} wait to be sent, at most"
            most = f"{limits.outbox_most} may ([messages] outbox_most); wa-agent why {id} says why"
            raise TooManyWait(f"{why} {most}")
        waiting = size + sum(each.bytes for each in list(self.senders.values()))
        if waiting + new.size > limits.outbox_megabytes << 20:
            why = f"cannot take the message: what waits to be sent has {waiting} bytes, at most"
            most = f"{limits.outbox_megabytes} MiB may wait ([messages] outbox_megabytes)"
            raise StoreError(f"{why} {most}", code="outbox_full")

    def _show(self, row: OutMessage) -> dict[str, Any]:
        hold = sender.hold if (sender := self.senders.get(row.instance)) else None
        return row.show(hold.sentence if hold else "", self._outbox.set_by if self._outbox else 0.0)

    async def _find(self, outbox: Outbox, id: InstanceId, message: str) -> OutMessage:
        if (row := await outbox.find(id, message)) is None:
            why = f"cannot find the message {message}: the outbox of {id} has none of that id"
            more = "it ended over 72 hours ago, or went with its instance or a lost outbox"
            raise NotFound(f"{why}; {more}", code="message_unknown")
        return row

    # Running

    async def _open(self) -> Outbox:
        while True:
            try:
                outbox = await Outbox.open(self._path)
                try:
                    known = await self._store.get_fact(MARK)
                    await outbox.begin(Mark(*json.loads(known)) if known else None)
                    if said := outbox.opened_so or outbox.writer.left:
                        self.lost = f"the outbox is lost: {said}"
                        log.error("%s", said)
                        note = JournalEntry("store_repaired", said, Category.SYSTEM)
                        await self._store.note(replace(note, wall=time.time()))
                    await self._mark(outbox)
                    # Another machine may bring the folder of a fleet's session that is not here.
                    waits = {row.instance for row in await outbox.waiting()}
                    for id in filter(self.limits.sure, waits):
                        await self._forget(outbox, id, 0.0)
                    rows = await outbox.waiting()
                    await asyncio.to_thread(self.files.remove_others, {it.file for it in rows})
                except BaseException:
                    await outbox.writer.close()
                    raise
            except WaError as error:
                if (said := f"messages to send are refused: {error}") != self.refused:
                    self.refused = said
                    log.error("%s", said)
                refused = StoreError(str(error), code=error.code)
                self._trouble = error if error.http >= 503 else refused
                self._opened.set()
                await asyncio.sleep(OPEN_AGAIN)
                continue
            self._outbox, self.refused, outbox.fits = outbox, "", self._must_fit
            for row in rows:
                self.add(outbox, row, impatient=False)
            self._opened.set()
            return outbox

    async def _mark(self, outbox: Outbox) -> None:
        await self._store.put_facts({MARK: json.dumps(outbox.mark)})

    async def _close(self, outbox: Outbox, works: Iterable["asyncio.Task[None]"]) -> None:
        self._outbox = None
        self._opened.clear()
        why = "the agent is stopping, or opens its outbox again"
        self._trouble = TryLater(f"{_CANNOT}: {why}", code="stopping")
        running = [*works, *self._tasks.values()]
        for task in running:
            task.cancel()
        stops = [sender.stop(5.0) for sender in self.senders.values()]
        await asyncio.gather(*stops, *running, return_exceptions=True)
        self.senders.clear()
        self._tasks.clear()
        with suppress(StoreError):
            if (fault := outbox.writer.fault) and fault.code == "damaged":
                # Higher than that of any copy in its place.
                outbox.mark = outbox.mark._replace(times=outbox.mark.times + 1)
            else:
                await outbox.tidy()
            await self._mark(outbox)
        await outbox.writer.close()

    def add(self, outbox: Outbox, row: OutMessage, *, impatient: bool) -> Waiting:
        if (sender := self.senders.get(row.instance)) is None:
            sender = SessionSender(row.instance, self._sessions, outbox, self.files, self.limits)
            sender.ended, self.senders[sender.id] = self._ended, sender
            work = self._run_sender(sender)
            self._tasks[sender.id] = asyncio.create_task(work, name=f"outbox {sender.id}")
        self._untidy, outbox.told = True, max(outbox.told, row.number)
        return sender.add(row, impatient=impatient)

    async def _run_sender(self, sender: SessionSender) -> None:
        await _keep_on(sender.run)
        del self._tasks[sender.id]
        del self.senders[sender.id]

    def _ended(self, waiting: Waiting, state: State, reason: str, end: End) -> None:
        self._untidy = True
        counts = self.counts.setdefault(waiting.row.instance, Counts())
        # Else a client that waited heard of it at once and asks again: nothing is late or lost.
        final = reason == "other_account" or judge(reason, str(end), MOST_TRIES) == "final"
        counts.ended[state] += final or state is not State.FAILED
        if state is State.SENT:
            counts.sent_wall = time.time()
        elif state in (State.FAILED, State.UNKNOWN):
            known = reason in counts.reasons or len(counts.reasons) < 40
            counts.reasons[reason if known else "other"] += 1
        waiting.tell(end)

    async def _tick(self, outbox: Outbox) -> None:
        """Do what is due, until the file is found damaged, or another one has its name."""
        known, tidied, marked = outbox.mark, outbox.now(), outbox.now()
        while True:
            senders, now = list(self.senders.values()), outbox.now()
            await outbox.writer.read(lambda _: None)  # it looks after its file
            fault = outbox.writer.fault
            if "damaged" in {it.code for it in (fault, *(each.hold for each in senders)) if it}:
                return
            self.refused = f"messages to send are refused: {fault}" if fault else ""
            for sender in senders:
                for waiting in [it for it in sender.waiting.values() if it.row.expires_wall <= now]:
                    await sender.take_back(waiting, State.EXPIRED, "it could not be sent in time")
            if self._untidy and now - tidied >= TIDY_EVERY:
                self._untidy, tidied = False, now
                await outbox.tidy()
            if outbox.mark != known and now - marked >= MARK_EVERY:
                known, marked = outbox.mark, now
                await self._mark(outbox)
            await asyncio.sleep(clock.until_next(1.0 if senders else 4.0))

    async def _events(self, outbox: Outbox) -> None:
        """Follow changes that may let a session send, acknowledgements and deletions."""
        for sender in self.senders.values():
            sender.wake()
        with closing(self._bus.subscribe(EVENTS, limit=20_000)) as subscription:
            async for entry in subscription:
                if (id := entry.instance) is None:
                    continue
                if entry.kind == "ack":
                    message, word = entry.detail.get("id"), entry.detail.get("ack")
                    await outbox.note_acks(id, [(str(message), str(word))])
                elif entry.kind == "deleted":
                    await self._forget(outbox, id, entry.wall)
                elif (own := self.senders.get(id)) is not None:
                    own.wake()

    async def _acks(self, outbox: Outbox) -> None:
        """Take acknowledgements that sessions keep, also those that came while no agent ran."""
        changes = self._reader.follow_changes()
        ids: frozenset[InstanceId] = frozenset(await outbox.followed())
        while True:
            for id, reached in (await outbox.followed()).items():
                cursor: int | None = reached if id in ids else None
                with suppress(NotFound, Refused, TryLater):  # a change comes later
                    while cursor is not None:
                        page = await self._reader.page(id, cursor, limit=LONGEST_PAGE)
                        kept = [each for each in page.records if each["kind"] == "message_ack"]
                        acks = [(it.get("message_id", ""), it.get("state", "")) for it in kept]
                        await outbox.note_acks(id, acks, page.next)
                        cursor = page.next if page.more else None
            await asyncio.sleep(5.0)
            ids = await changes.next()

    async def forget(self, id: InstanceId) -> int:
        """End the messages of a deleted instance; return the number of those that were not sent."""
        if self._outbox is not None:
            await self._forget(self._outbox, id, time.time())
        return self.dropped.pop(id, 0)

    async def _forget(self, outbox: Outbox, id: InstanceId, deleted_wall: float) -> None:
        """Delete the rows of a deleted instance, but not those of a later one of that name."""
        born = 0.0
        with suppress(NotFound):
            made = self._sessions.view(id).instance.created_wall
            born = made if made > deleted_wall else 0.0
        self.counts.pop(id, None)
        if not (count := await self.let_go(outbox, id, born, moved=False)):
            return
        self._untidy, self.dropped[id] = True, self.dropped.get(id, 0) + count
        why = "was deleted" if deleted_wall else "is gone, or another agent's"
        words = f"{count} messages in {NAME} are not sent: their instance {why}"
        log.warning("%s", words, extra=log.about(id))
        said = JournalEntry("outbox_dropped", words, instance=id, wall=time.time())
        await self._store.note(replace(said, detail={"count": count}))

    async def let_go(self, outbox: Outbox, id: InstanceId, born: float, moved: bool) -> int:
        """Delete the rows of an instance; return the number of those that waited. `moved`: another
        machine sends them."""
        gone, sender = await outbox.forget_instance(id, born), self.senders.get(id)
        for row in gone:
            if sender is not None and (waiting := sender.waiting.get(row.number)) is not None:
                sender.drop(waiting)
                gone_too = NotFound(f"cannot send {row.id}: {id} was deleted", field="id")
                waiting.tell(row if moved else gone_too)
        await asyncio.to_thread(self.files.remove, *(row.file for row in gone))
        return len(gone)


async def _keep_on(work: Callable[[], Awaitable[None]]) -> None:
    """Do `work`: an error of the outbox's own ends no session; a damaged file is opened again."""
    while True:
        try:
            return await work()
        except Exception as error:
            known = isinstance(error, WaError | OSError)  # the disk is full, or cannot be read
            log.error("the outbox goes on after: %s", error, exc_info=None if known else error)
            if isinstance(error, StoreError) and error.code == "damaged":
                return None
        await asyncio.sleep(OPEN_AGAIN)
