"""Sends what waits of one session: several chats at once, each chat in its order."""

import asyncio
import heapq
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.clock import boot_now
from agent.core.event_json import wall_text
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.view import InstanceView
from agent.core.words import OTHER_ACCOUNT
from agent.engines.catalog import entry_of
from agent.errors import (
    EngineError,
    InvalidRequest,
    NotFound,
    Refused,
    StoreError,
    TooLarge,
    TryLater,
    WaError,
)
from agent.failpoint import failpoint
from agent.log import about
from agent.messages.media import OutgoingFiles
from agent.messages.outbox import CUT, Ack, Outbox, OutMessage, chat_of
from agent.messages.outcomes import (
    LONGEST,
    UNKNOWN_OUTCOME,
    Hold,
    Holds,
    Judgement,
    State,
    is_time_lock,
    judge,
    next_try,
)

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Chats of a session that are sent to at the same time."""
LOOK_AGAIN = 10.0
"""Seconds after which a session that is held is looked at again; its events wake earlier."""
LEAST_WAIT, LONGEST_WAIT = 0.05, 60.0
WRITE_AGAIN = 5.0
MOST_EARLY = 1000
PACED = "paced"
ME = "me"
"""In the place of a jid: this session's account."""
_CHANGES = ("reaction", "delete")
"""They have the id of the message that they are about, on engines that give them none."""
_STATES = frozenset(
    {
        *("not_connected", "stopping", "not_supported", "remote_missing", "number_unknown"),
        *("chat_not_found", "message_not_found", "invalid_wid"),
    }
)
"""Codes of an engine: the message is right, and the session's state does not allow it."""


class Sessions(Protocol):
    """What a sender asks of the agent's sessions."""

    def view(self, id: InstanceId) -> InstanceView: ...

    async def send(
        self, id: InstanceId, message: Mapping[str, Any], file: Path | None = None
    ) -> Mapping[str, Any]: ...

    async def find(
        self, id: InstanceId, chat: str, message_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class End:
    """How a message ended, for a client that waits: the engine's answer, or an error. Neither: it
    has not ended, and the agent stops."""

    answer: Mapping[str, Any] | None = None
    error: WaError | None = None


@dataclass(slots=True, eq=False)
class Waiting:
    """A message that waits, without its content."""

    row: OutMessage
    maybe_out: bool
    """True if a try that is over may have sent it."""
    tries: int
    impatient: bool = False
    """True if a client waits for the answer to the first try: a refusal of it ends the message."""
    due: float = 0.0
    """Boot time before which it is not tried."""
    under_way: bool = False
    gone: bool = False
    clients: "list[asyncio.Future[End]]" = field(default_factory=list)
    end: End | None = None

    def tell(self, end: End) -> None:
        self.end = end
        for client in self.clients:
            if not client.done():
                client.set_result(end)


class Lanes:
    """A queue for each chat, of which only the first message may be taken. Chats take turns, so one
    with many messages delays no other.

    The names in `_ready` and `_later` are hints, and may stand twice: `take` looks at the lane."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Waiting]] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Waiting]:
        return (each for lane in self._lanes.values() for each in lane if not each.gone)

    def add(self, waiting: Waiting) -> None:
        self._lanes.setdefault(waiting.row.lane, deque()).append(waiting)
        self._ready.append(waiting.row.lane)

    def heads(self) -> Iterator[Waiting]:
        firsts = (self._head(name) for name in self._lanes)
        return (first for first in firsts if first is not None and not first.under_way)

    def take(self, now: float) -> Waiting | None:
        """The next one that is due; `put_back` or `remove` follows."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[1])
        while self._ready:
            name = self._ready.popleft()
            head = self._head(name)
            if head is None:
                self._lanes.pop(name, None)
            elif head.due > now:
                heapq.heappush(self._later, (head.due, name))
            elif not head.under_way:
                head.under_way = True
                return head
        return None

    def next_due(self) -> float | None:
        return self._later[0][0] if self._later else None

    def put_back(self, waiting: Waiting, due: float) -> None:
        """Its try is over, and another one comes."""
        waiting.under_way, waiting.due = False, due
        heapq.heappush(self._later, (due, waiting.row.lane))

    def remove(self, waiting: Waiting) -> None:
        """It has ended; the next one of its chat may go."""
        waiting.under_way, waiting.gone = False, True
        self._ready.append(waiting.row.lane)

    def _head(self, name: str) -> Waiting | None:
        lane = self._lanes.get(name, deque())
        while lane and lane[0].gone:
            lane.popleft()
        return lane[0] if lane else None


Ended = Callable[[Waiting, State, str, End], None]
"""Hears of each end with its reason, when it is on the disk or cannot be taken back."""


class SessionSender:
    def __init__(
        self,
        id: InstanceId,
        sessions: Sessions,
        outbox: Outbox,
        files: OutgoingFiles,
        ended: Ended,
    ) -> None:
        self.id = id
        self.per_minute = 0.0
        """Messages a minute at most; 0 = as many as come."""
        self.lanes = Lanes()
        self.count = self.bytes = 0
        self.hold: Hold | None = None
        self._sessions, self._outbox, self._files = sessions, outbox, files
        self._ended = ended
        self._holds = Holds()
        self._wake = asyncio.Event()
        self._tries: set[asyncio.Task[None]] = set()
        self._early: deque[Ack] = deque(maxlen=MOST_EARLY)
        """Acknowledgements that came while a try was under way, of messages not known yet."""
        self._tried_at: float | None = None
        """Boot time of the last try; None: not read yet."""

    def add(self, row: OutMessage, *, impatient: bool = False) -> Waiting:
        maybe_out = row.state is State.SENDING
        due = boot_now() + row.not_before_wall - time.time()
        waiting = Waiting(row, maybe_out, row.tries, impatient, due)
        self.lanes.add(waiting)
        self.count, self.bytes = self.count + 1, self.bytes + row.size
        self._wake.set()
        return waiting

    def find(self, number: int) -> Waiting | None:
        return next((each for each in self.lanes if each.row.number == number), None)

    def oldest(self) -> OutMessage | None:
        return min((each.row for each in self.lanes), key=lambda row: row.number, default=None)

    def wake(self) -> None:
        """The session changed, perhaps for the better."""
        self._holds.changed()
        self._wake.set()

    def note_early(self, acks: Sequence[Ack]) -> None:
        if self._tries:
            self._early.extend(acks)

    async def end(self, waiting: Waiting, state: State, end: End, **columns: Any) -> bool:
        """End one by another hand; False: a try of it is under way, or it has ended."""
        if waiting.gone or waiting.under_way:
            return False
        waiting.under_way = True
        await self._end(waiting, state, end, **columns)
        return True

    def drop(self, waiting: Waiting) -> None:
        """It waits no more."""
        if not waiting.gone:
            self.lanes.remove(waiting)
            self.count, self.bytes = self.count - 1, self.bytes - waiting.row.size
            self._wake.set()

    async def run(self) -> None:
        """Until nothing waits."""
        while self.count or self._tries:
            self._wake.clear()
            view = None
            with suppress(NotFound):
                view = self._sessions.view(self.id)
            self.hold = self._holds.find(view, boot_now(), time.time())
            if self.hold is not None:
                await self._refuse_impatient(self.hold)
            elif view is not None:
                await self._start_tries(view)
            if self.count or self._tries:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._wake.wait()
        self.hold = None

    async def stop(self, within: float) -> None:
        """Let the tries under way end."""
        if self._tries:
            await asyncio.wait(self._tries, timeout=within)
        for task in self._tries:
            task.cancel()
        if self._tries:
            await asyncio.wait(self._tries)

    async def _start_tries(self, view: InstanceView) -> None:
        while len(self._tries) < (1 if self._holds.careful else AT_ONCE):
            self.hold = await self._pause()
            waiting = None if self.hold else self.lanes.take(boot_now())
            if waiting is None:
                break
            self._tried_at = boot_now()
            task = asyncio.create_task(self._try(waiting, view), name=f"outbox of {self.id}")
            self._tries.add(task)
            task.add_done_callback(self._over)

    async def _pause(self) -> Hold | None:
        """The limit of messages a minute, which counts retries. A restart gives no more of them."""
        if not self.per_minute:
            return None
        share = 60.0 / self.per_minute
        if self._tried_at is None:
            ago = time.time() - await self._outbox.last_begun(self.id)
            self._tried_at = boot_now() - max(ago, 0.0)
        if (left := self._tried_at + share - boot_now()) <= 0:
            return None
        until = time.time() + left
        words = f"[messages.pace] lets one message go in {share:.0f} s; the next one goes at"
        return Hold(PACED, f"{words} {wall_text(until)}", until)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tries.discard(task)
        if not self._tries:
            self._early.clear()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a try to send failed", exc_info=error, extra=about(self.id))
        self._wake.set()

    def _patience(self) -> float:
        """Seconds until there may be something to do; events wake earlier."""
        if self.hold is not None:
            left = LOOK_AGAIN
            if self.hold.until_wall is not None:
                left = max(self.hold.until_wall - time.time(), LEAST_WAIT)
            return left if self.hold.code == PACED else min(left, LOOK_AGAIN)
        if len(self._tries) >= (1 if self._holds.careful else AT_ONCE):
            return LONGEST_WAIT
        due = self.lanes.next_due()
        return LONGEST_WAIT if due is None else max(due - boot_now(), LEAST_WAIT)

    async def _refuse_impatient(self, hold: Hold) -> None:
        """A hold holds each way: clients that wait hear of it, and no try is made."""
        for waiting in [each for each in self.lanes.heads() if each.impatient]:
            if not waiting.maybe_out:
                words = f"cannot send with {self.id}: {hold.sentence}"
                waiting.under_way = True
                await self._end_failed(waiting, Refused(words, code=hold.refusal), tries=0)

    # One try

    async def _try(self, waiting: Waiting, view: InstanceView) -> None:
        try:
            content = await self._outbox.content(waiting.row.number)
            if content is None or view.instance.created_wall != waiting.row.born:
                self.drop(waiting)
                return
            account = account_of(view)
            if account and waiting.row.account not in ("", account):
                words = f"cannot send with {self.id}: it was paired with another account meanwhile"
                await self._end_failed(waiting, Refused(words, code=OTHER_ACCOUNT), tries=0)
                return
            if waiting.maybe_out and not entry_of(view.instance.engine).repeats:
                await self._end_unknown(waiting, "the agent ended while it was sent")
                return
            # On the disk before the session hears of it.
            number, now = waiting.row.number, time.time()
            await self._outbox.change(number, State.SENDING, begun_wall=now)
        except StoreError as error:
            self._holds.refuse(error.code, str(error), boot_now(), random.random())
            self.lanes.put_back(waiting, boot_now())
            return
        failpoint("outbox_begun")
        path = self._files.folder / waiting.row.file if waiting.row.file else None
        try:
            message = await complete(self.id, content, self._outbox, self._sessions)
            answer = await self._sessions.send(self.id, message, path)
        except WaError as error:
            await self._failed(waiting, error, view.instance.engine)
        except Exception as error:
            log.exception("internal error: it may have sent a message", extra=about(self.id))
            unsure = TryLater(f"internal error: {type(error).__name__}", code=UNKNOWN_OUTCOME)
            await self._failed(waiting, unsure, view.instance.engine)
        else:
            failpoint("outbox_sent")
            await self._sent(waiting, answer)

    async def _sent(self, waiting: Waiting, answer: Mapping[str, Any]) -> None:
        self._holds.sent()
        id = answer.get("id")
        message_id = id[:200] if isinstance(id, str) else ""
        told = {"message_id": message_id, "answer": dict(answer), "reason": "", "sentence": ""}
        await self._end(waiting, State.SENT, End(answer), **told)
        failpoint("outbox_noted")
        names = (message_id, message_id[:CUT])
        early = [ack for ack in self._early if message_id and ack.message_id in names]
        if early:
            await self._outbox.note_acks(self.id, early)

    async def _failed(self, waiting: Waiting, error: WaError, engine: str) -> None:
        shown = explain_refusal(engine, error)
        tries, may_be_out = waiting.tries + 1, waiting.maybe_out
        found = judge(shown.code, str(error), tries)
        told = {"reason": shown.code, "sentence": str(shown), "tries": tries}
        if found is Judgement.SESSION:
            lock = is_time_lock(shown.code, str(error))
            jitter = random.random()
            self._holds.refuse(shown.code, str(shown), boot_now(), jitter, lock=lock)
        if found is Judgement.UNKNOWN:
            if not entry_of(engine).repeats:
                await self._end_unknown(waiting, str(shown))
                return
            waiting.maybe_out = True
        elif may_be_out and found is Judgement.FINAL:
            words = f"an earlier try may have sent it; the last one: {shown}"
            await self._end_unknown(waiting, words)
            return
        elif found is Judgement.FINAL or (waiting.impatient and not may_be_out):
            await self._end_failed(waiting, shown)
            return
        await self._again(waiting, found, told)

    async def _again(self, waiting: Waiting, found: Judgement, told: dict[str, Any]) -> None:
        due, state = boot_now(), State.SENDING if waiting.maybe_out else State.ACCEPTED
        if found is Judgement.SESSION:
            told["tries"] = waiting.tries
        else:
            waiting.tries = told["tries"]
            wait = next_try(waiting.tries, LONGEST, random.random())
            due, told["not_before_wall"] = due + wait, time.time() + wait
        try:
            await self._outbox.change(waiting.row.number, state, **told)
        except StoreError as error:
            log.error("cannot note a try: %s", error, extra=about(self.id))
        self.lanes.put_back(waiting, due)

    async def _end_unknown(self, waiting: Waiting, words: str) -> None:
        error = TryLater(f"cannot send with {self.id}: {words}", code=UNKNOWN_OUTCOME)
        told = {"reason": State.UNKNOWN.value, "sentence": words}
        await self._end(waiting, State.UNKNOWN, End(error=error), **told)

    async def _end_failed(self, waiting: Waiting, error: WaError, *, tries: int = 1) -> None:
        """It did not go out: its Idempotency-Key may be used again."""
        told = {"reason": error.code, "sentence": str(error), "repeats": ""}
        tries += waiting.tries
        await self._end(waiting, State.FAILED, End(error=error), tries=tries, **told)

    async def _end(self, waiting: Waiting, state: State, end: End, **columns: Any) -> None:
        """Write it down, for as long as that takes; a client that waits hears of it at once."""
        said, reason, number = False, str(columns.get("reason", "")), [waiting.row.number]
        waiting.end = end  # a request with its key must not hear that it goes on waiting
        while True:
            try:
                await self._outbox.end(number, state, time.time(), **columns)
                break
            except StoreError as error:
                if not said:
                    log.error("an end is written later: %s", error, extra=about(self.id))
                    self._ended(waiting, state, reason, end)
                said = True
                await asyncio.sleep(WRITE_AGAIN)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._files.remove, waiting.row.file)
        self.drop(waiting)
        if not said:
            self._ended(waiting, state, reason, end)


async def complete(
    id: InstanceId, message: Mapping[str, Any], outbox: Outbox, sessions: Sessions
) -> Mapping[str, Any]:
    """The message with WhatsApp's id and the writer of the earlier one that it is about: replied
    to, reacted to, edited, deleted."""
    names = ("quote", "quote_from") if "quote" in message else None
    if message["type"] in ("edit", "delete", "reaction"):
        names = ("message_id", "sender")
    if names is None:
        return message
    its, writer = names
    whole, chat = dict(message), chat_of(str(message["to"]))
    row = await outbox.find(id, whole[its])
    if row is not None and row.chat == chat and row.state.left and row.type not in _CHANGES:
        whole[its] = row.message_id
        whole.setdefault(writer, ME)
    elif whole[its].startswith("out_"):
        raise Refused(
            f"cannot send: {whole[its]!r:.80} is no message that was sent to this chat",
            field=its,
            code="message_not_found",
        )
    if message["type"] == "edit" or (writer in whole and its != "quote"):
        return whole
    jid = chat if "@" in chat else f"{chat}@s.whatsapp.net"
    found = (await sessions.find(id, jid, [whole[its]])).get(whole[its])
    if found is not None:
        whole.setdefault(writer, ME if found.get("from_me") else str(found.get("sender", "")))
        if its == "quote":
            whole |= {"quote_text": found.get("text", ""), "quote_type": found.get("type", "")}
    if message["type"] == "delete":
        whole.setdefault(writer, ME)
    return whole


def explain_refusal(engine: str, error: WaError) -> WaError:
    """The engine's refusal as an error: wrong, not supported, or not in this state."""
    if not isinstance(error, EngineError):
        return error
    if error.code == "invalid_request":
        if error.field != "type":
            return InvalidRequest(str(error), field=error.field or "body")
        return Refused(f"{error} ({engine})", field="type", code="not_supported")
    if error.code == "file_too_large":
        return TooLarge(str(error), field="content", code=error.code)
    if error.code in _STATES:
        return Refused(str(error), code=error.code)
    return error


def account_of(view: InstanceView) -> str:
    """The number of the session; "" = it is paired with none. While it is not connected, that of
    its record: a server may show another session in its place."""
    claim = view.claim.claim if view.claim is not None else None
    connected = view.status is ConnectionStatus.CONNECTED
    told = claim.account if claim is not None and claim.paired and connected else ""
    account = told or view.record.account
    return chat_of(account) if account else ""
