"""Sends what waits of one session: several chats at once, each chat in its order."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from agent import clock, errors, log
from agent.core.session import Session, wall_text
from agent.core.words import OTHER_ACCOUNT, ConnectionStatus, InstanceId
from agent.engines import catalog, tasks, whatsapp
from agent.files import failpoint
from agent.messages.media import OutFiles, is_whole
from agent.messages.outbox import Outbox, OutMessage
from agent.messages.outcomes import LEFT, UNSURE, Hold, Holds, State, judge, next_try, refusal_of
from agent.messages.settings import MessagesSettings, PaceSettings
from agent.supervise.assemble import Supervisor

AT_ONCE = 4
"""Chats of a session that are sent to at the same time."""
LOOK_AGAIN = 10.0
"""Seconds after which a session that is held is looked at again; its events wake earlier."""
LEAST_WAIT, LONGEST_WAIT = 0.05, 60.0
ME = "me"
"""In the place of a jid: this session's account."""
_CHANGES = ("reaction", "delete")
"""Types that have the id of the message they are about, on engines that give them none."""
End = OutMessage | errors.WaError | None
"""How a message ended, for a client that waits: its row when it was sent, or an error. None: it has
not ended, and the agent stops."""


@dataclass(slots=True)
class Limits:
    messages: MessagesSettings = field(default_factory=MessagesSettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    sure: Callable[[InstanceId], object] = bool
    """False while another machine may send what this one would refuse."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A message that waits, without its content."""

    row: OutMessage
    """The row as the last try left it: `sending` = a try that is over may have sent it."""
    impatient: bool = False
    """True if a client waits for the answer to the first try: a refusal of it ends the message."""
    under_way: bool = False
    refused: bool = False
    """True if the last try of the message showed that the session cannot send."""
    clients: int = 0
    ending: End = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def maybe_out(self) -> bool:
        return self.row.state is State.SENDING

    def tell(self, end: End) -> None:
        self.ending = end if end is not None else self.ending
        self.over.set()


class SessionSender:
    """`run` sends; its caller adds messages, wakes it and takes messages back."""

    def __init__(
        self, id: InstanceId, sessions: Supervisor, outbox: Outbox, files: OutFiles, limits: Limits
    ) -> None:
        self.id = id
        self.ended: Callable[[Waiting, State, str, End], None] = lambda waiting, *_: None
        """Hears of each end with its reason, when it is on the disk or cannot be taken back."""
        self.waiting: dict[int, Waiting] = {}
        """Messages by number, which is their order."""
        self.bytes = 0
        self.hold: Hold | None = None
        self._chats: dict[str, deque[Waiting]] = {}
        """Chat → its messages in order; the chat that was sent to last is the last."""
        self._sessions, self._outbox, self._files, self._limits = sessions, outbox, files, limits
        self._holds = Holds()
        self._wake = asyncio.Event()
        self._tries: set[asyncio.Task[None]] = set()
        self._tried_at: float | None = None
        """Boot time of the last try; None: not read yet."""

    def add(self, row: OutMessage, *, impatient: bool = False) -> Waiting:
        waiting = self.waiting[row.number] = Waiting(row, impatient)
        self._chats.setdefault(row.lane, deque()).append(waiting)
        self.bytes += row.size
        self._wake.set()
        return waiting

    def drop(self, waiting: Waiting) -> None:
        """Take a message off the queue; the next one of its chat may go."""
        if self.waiting.pop(waiting.row.number, None) is not None:
            chat = self._chats.pop(waiting.row.lane)
            chat.remove(waiting)
            if chat:
                self._chats[waiting.row.lane] = chat
            self.bytes -= waiting.row.size
            self._wake.set()

    def oldest(self) -> float | None:
        """Unix time at which the message that waits longest was accepted."""
        times = (each.row.accepted_wall + self._outbox.set_by for each in self.waiting.values())
        return next(times, None)

    def of_one(self) -> Hold:
        """Return why the first message that waits for a try of its own does."""
        for row in (each.row for each in self.waiting.values()):
            if row.not_before_wall > self._outbox.now():
                return Hold(row.reason, row.sentence, row.not_before_wall + self._outbox.set_by)
        return Hold("", "")

    def wake(self) -> None:
        """Look again at once: the session changed, perhaps for the better."""
        self._holds.changed()
        self._wake.set()

    async def take_back(self, waiting: Waiting, state: State, words: str) -> bool:
        """End one before its time; False: a try of it is under way, or it has ended. Its
        Idempotency-Key stays its own: a repeat of an earlier request sends it no more."""
        if waiting.under_way or waiting.row.number not in self.waiting:
            return False
        waiting.under_way = True
        if waiting.maybe_out:
            await self._unsure(waiting, f"{words}; an earlier try may have sent it")
        else:
            await self._end(waiting, state, self._cannot(words, state.value), state.value, words)
        return True

    async def run(self) -> None:
        """Send until nothing waits."""
        while self.waiting or self._tries:
            self._wake.clear()
            view = None
            with suppress(errors.NotFound):
                view = self._sessions.view(self.id)
            self.hold = self._holds.find(view, clock.boot_now(), time.time())
            if self.hold is None and view is not None:
                await self._start_tries(view)
            elif self.hold is not None and self._limits.sure(self.id):
                await self._refuse_impatient(self.hold)
            if self.waiting or self._tries:
                await tasks.until_set(self._wake, self._patience())
        self.hold = None

    async def stop(self, within: float) -> None:
        """Let the tries under way end."""
        if self._tries:
            await asyncio.wait(self._tries, timeout=within)
        for task in self._tries:
            task.cancel()
        await asyncio.gather(*self._tries, return_exceptions=True)
        for waiting in self.waiting.values():
            waiting.tell(None)

    @property
    def _full(self) -> bool:
        return len(self._tries) >= (1 if self._holds.careful else AT_ONCE)

    async def _start_tries(self, view: Session) -> None:
        while not self._full:
            self.hold = await self._pause()
            if self.hold is not None or (waiting := self._take()) is None:
                break
            self._tried_at = clock.boot_now()
            task = asyncio.create_task(self._try(waiting, view), name=f"outbox of {self.id}")
            self._tries.add(task)
            task.add_done_callback(self._over)

    def _take(self) -> Waiting | None:
        """The first message of a chat that is due; of those the session refused, only where there
        is no other. Chats take turns, so one with many messages delays no other."""
        firsts, now = (chat[0] for chat in self._chats.values()), self._outbox.now()
        due = (it for it in firsts if not it.under_way and it.row.not_before_wall <= now)
        if first := min(due, key=lambda each: each.refused, default=None):
            first.under_way, first.refused = True, False
        return first

    def _put_back(self, waiting: Waiting) -> None:
        """End a try that will be repeated: the chat goes behind the others."""
        waiting.under_way = False
        self._chats[waiting.row.lane] = self._chats.pop(waiting.row.lane)

    async def _pause(self) -> Hold | None:
        """Hold by the limit of messages a minute. Retries count; a restart lifts no hold."""
        if not (rate := self._limits.pace.per_minute):
            return None
        share = 60.0 / rate
        if self._tried_at is None:
            ago = self._outbox.now() - await self._outbox.last_begun(self.id)
            self._tried_at = clock.boot_now() - max(ago, 0.0)
        if (left := self._tried_at + share - clock.boot_now()) <= 0:
            return None
        until = time.time() + left
        words = f"[messages.pace] lets one message go in {share:.0f} s; the next one goes at"
        return Hold("paced", f"{words} {wall_text(until)}", until)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tries.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a try to send failed", exc_info=error, extra=log.about(self.id))
        self._wake.set()

    def _patience(self) -> float:
        """Seconds until there may be something to do; events wake earlier."""
        if self.hold is not None:
            until = self.hold.until_wall or float("inf")
            return min(max(until - time.time(), LEAST_WAIT), LOOK_AGAIN)
        firsts = () if self._full else [chat[0] for chat in self._chats.values()]
        times = (each.row.not_before_wall for each in firsts if not each.under_way)
        left = min(times, default=float("inf")) - self._outbox.now()
        return min(max(left, LEAST_WAIT), LONGEST_WAIT)

    async def _refuse_impatient(self, hold: Hold) -> None:
        """Refuse the messages of clients that wait: no try is made during a hold."""
        for waiting in [chat[0] for chat in self._chats.values()]:
            if waiting.impatient and not (waiting.maybe_out or waiting.under_way):
                waiting.under_way = True
                await self._fail(waiting, self._cannot(hold.sentence, hold.refusal), tries=0)

    def _cannot(self, words: str, code: str) -> errors.TryLater:
        head = f"cannot send with {self.id}: "
        return errors.TryLater(head + words.removeprefix(head), code=code)

    # One try

    async def _try(self, waiting: Waiting, view: Session) -> None:
        row, engine = waiting.row, view.instance.engine
        path = self._files.folder / row.file if row.file else None
        try:
            content = await self._outbox.content(row.number)
            if content is None or view.instance.created_wall != row.born:
                self.drop(waiting)
                return
            account = account_of(view)
            if account and row.account not in ("", account):
                words = f"cannot send with {self.id}: it was paired with another account meanwhile"
                raise errors.Refused(words, code=OTHER_ACCOUNT)
            if waiting.maybe_out and not catalog.entry_of(engine).repeats:
                await self._unsure(waiting, "the agent ended while it was sent")
                return
            hash = content.pop("sha256", "")
            if path and not await asyncio.to_thread(is_whole, path, hash, row.size):
                words = f"cannot send with {self.id}: the file of the message is not whole here"
                raise errors.Refused(words, code="file_lost")
            # On the disk before the session hears of it.
            await self._outbox.change(row.number, State.SENDING, begun_wall=self._outbox.now())
        except errors.Refused as error:
            await self._fail(waiting, error, tries=0)
            return
        except OSError as error:
            words = f"the file of the message cannot be read: {error.strerror}"
            await self._failed(waiting, self._cannot(words, "file_unreadable"), engine)
            return
        except errors.StoreError as error:
            self._holds.refuse(error.code, str(error), clock.boot_now(), random.random())
            self._put_back(waiting)
            return
        failpoint("outbox_begun")
        try:
            message = await complete(self.id, content, self._outbox, self._sessions)
            answer = await self._sessions.send(self.id, message, path)
        except errors.WaError as error:
            await self._failed(waiting, error, engine)
        except Exception as error:
            log.exception("internal error: it may have sent a message", extra=log.about(self.id))
            unsure = errors.TryLater(f"internal error: {type(error).__name__}", code=UNSURE)
            await self._failed(waiting, unsure, engine)
        else:
            failpoint("outbox_sent")
            self._holds.sent()
            message_id = told[:200] if isinstance(told := answer.get("id"), str) else ""
            sent = replace(waiting.row, state=State.SENT, message_id=message_id)
            sent = replace(sent, changed_wall=self._outbox.now())
            await self._end(waiting, State.SENT, sent, "", "", message_id=message_id)
            failpoint("outbox_noted")

    async def _failed(self, waiting: Waiting, error: errors.WaError, engine: str) -> None:
        shown, row = refusal_of(engine, error), waiting.row
        found = judge(shown.code, str(error), row.tries + 1)
        ends = not waiting.maybe_out and self._limits.sure(self.id)
        if found == "session":
            self._holds.refuse(shown.code, str(shown), clock.boot_now(), random.random())
            waiting.refused = True
        else:
            at = self._outbox.now() + next_try(row.tries + 1, random.random())
            row = replace(row, tries=row.tries + 1, not_before_wall=at)
        if found == "unknown":
            if not catalog.entry_of(engine).repeats:
                await self._unsure(waiting, str(shown))
                return
            row = replace(row, state=State.SENDING)
        elif found == "final" or (waiting.impatient and ends):
            await self._fail(waiting, shown)
            return
        waiting.row = row = replace(row, reason=shown.code, sentence=str(shown))
        told = {it: getattr(row, it) for it in ("tries", "reason", "sentence", "not_before_wall")}
        try:
            await self._outbox.change(row.number, row.state, **told)
        except errors.StoreError as failure:
            log.error("cannot note a try: %s", failure, extra=log.about(self.id))
        self._put_back(waiting)

    async def _unsure(self, waiting: Waiting, words: str) -> None:
        await self._end(waiting, State.UNKNOWN, self._cannot(words, UNSURE), "unknown", words)

    async def _fail(self, waiting: Waiting, error: errors.WaError, *, tries: int = 1) -> None:
        """End a message that failed. If it surely did not go out, its Idempotency-Key may be used
        again."""
        if waiting.maybe_out:
            await self._unsure(waiting, f"an earlier try may have sent it; the last one: {error}")
            return
        told = {"repeats": "", "tries": waiting.row.tries + tries}
        await self._end(waiting, State.FAILED, error, error.code, str(error), **told)

    async def _end(
        self, waiting: Waiting, state: State, end: End, reason: str, sentence: str, **columns: Any
    ) -> None:
        """Write the end down, for as long as that takes; a waiting client hears of it at once."""
        said, words = False, {"reason": reason, "sentence": sentence}
        waiting.ending = end  # a request with its key must not hear that it goes on waiting
        while True:
            try:
                await self._outbox.change(waiting.row.number, state, **words, **columns)
                break
            except errors.StoreError as error:
                if not said:
                    log.error("an end is written later: %s", error, extra=log.about(self.id))
                    self.ended(waiting, state, reason, end)
                said = True
                await asyncio.sleep(5.0)
        await asyncio.to_thread(self._files.remove, waiting.row.file)
        self.drop(waiting)
        if not said:
            self.ended(waiting, state, reason, end)


async def complete(
    id: InstanceId, message: Mapping[str, Any], outbox: Outbox, sessions: Supervisor
) -> Mapping[str, Any]:
    """The message with WhatsApp's id and the writer of the earlier one that it is about: replied
    to, reacted to, edited, deleted."""
    kind = message["type"]
    about = kind in ("edit", "delete", "reaction")
    key, writer = ("message_id", "sender") if about else ("quote", "quote_from")
    if key not in message:
        return message
    whole, chat = dict(message), whatsapp.chat_of(str(message["to"]))
    row = await outbox.find(id, whole[key])
    if row is not None and row.chat == chat and row.state in LEFT and row.type not in _CHANGES:
        whole[key] = row.message_id
        whole.setdefault(writer, ME)
    elif whole[key].startswith("out_"):
        words = f"cannot send: {whole[key]!r:.80} is no message that was sent to this chat"
        raise errors.Refused(words, field=key, code="message_not_found")
    if kind != "edit" and (key == "quote" or writer not in whole):
        jid = chat if "@" in chat else f"{chat}@s.whatsapp.net"
        found = (await sessions.find(id, jid, [whole[key]])).get(whole[key])
        if found is not None:
            whole.setdefault(writer, ME if found.get("from_me") else str(found.get("sender", "")))
            if key == "quote":
                whole |= {"quote_text": found.get("text", ""), "quote_type": found.get("type", "")}
    if kind == "delete":
        whole.setdefault(writer, ME)
    return whole


def account_of(view: Session) -> str:
    """The number of the session; "" = it is paired with none. While it is not connected, that of
    its record: a server may show another session in its place."""
    claim = view.claim.claim if view.claim is not None else None
    connected = view.status is ConnectionStatus.CONNECTED
    told = claim.account if claim is not None and claim.paired and connected else ""
    return whatsapp.chat_of(told or view.record.account)
