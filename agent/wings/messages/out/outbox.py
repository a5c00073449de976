"""The outbox: takes messages onto the disk, and lets each session's sender send them."""

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from agent.api.handlers.messages import answer_sent
from agent.api.http.call import Call, Order
from agent.config import Config
from agent.core.event_json import wall_text
from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.engines.receiver import check_receiver
from agent.errors import NotFound, Refused, StoreError, TryLater
from agent.failpoint import failpoint
from agent.metrics.text import Family
from agent.wings.messages.out.answer import Taken, answer_to
from agent.wings.messages.out.database import NAME
from agent.wings.messages.out.file import FOLDER, LONGEST_INSIDE, OutboxFiles
from agent.wings.messages.out.limits import HOUR, limits_of, pace_of
from agent.wings.messages.out.message import OutMessage, chat_of, hash_of
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.running import Running
from agent.wings.messages.out.session.figures import ENDS, OutboxFigures, outbox_samples
from agent.wings.messages.out.session.pacing import NEW_PEOPLE
from agent.wings.messages.out.session.sessions import Sessions
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore
from agent.wings.messages.settings import MessagesSettings

log = logging.getLogger(__name__)

OPENS_WITHIN = 10.0
"""Seconds that a message waits for the file to be opened, just after the agent's start."""


class TooManyWait(TryLater):
    code = "outbox_full"
    http = 429


class NoRoom(StoreError):
    code = "outbox_full"


def open_outbox(around: Around) -> "Outbox":
    state = around.config.agent.state_path
    running = Running(around, Sessions(around), state / NAME, OutboxFiles(state / FOLDER))
    return Outbox(running, limits_of(around.config), around.supervisor.views)


class Outbox:
    """What the API asks; `running` does the work."""

    def __init__(
        self,
        running: Running,
        limits: MessagesSettings,
        sessions: Callable[[], Iterable[InstanceId]],
    ) -> None:
        self._running = self.running = running
        self._sessions = sessions
        self._limits = limits
        self._coming: Counter[InstanceId] = Counter()
        """Messages on their way to the disk, which the limits count."""
        self._coming_bytes = 0

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {"outbox": self._running.run}

    def reload(self, config: Config) -> None:
        self._limits = limits_of(config)
        self._running.paces.rules = pace_of(config)
        for sender in self._running.senders.values():
            sender.wake()

    def samples(self) -> Iterable[tuple[Family, str]]:
        return outbox_samples(self.figures())

    def figures(self) -> OutboxFigures:
        return self._running.counts.figures(self._sessions(), self._what_waits)

    def _what_waits(self, id: InstanceId) -> tuple[int, float | None]:
        """How many, and when the oldest was accepted."""
        sender = self._running.senders.get(id)
        oldest = None if sender is None else sender.queue.oldest()
        if sender is None or oldest is None:
            return 0, None
        return sender.queue.count, oldest.accepted_wall

    def waiting(self, id: InstanceId) -> Mapping[str, Any]:
        sender = self._running.senders.get(id)
        oldest = None if sender is None else sender.queue.oldest()
        if sender is None or oldest is None:
            return {}
        hold = sender.hold or sender.paced
        held = "" if hold else next((each.held for each in sender.queue if each.held), "")
        return {
            "waiting": sender.queue.count,
            "oldest": wall_text(oldest.accepted_wall),
            "reason": hold.code if hold else NEW_PEOPLE * bool(held),
            "sentence": hold.sentence if hold else held and f"one of them waits: {held}",
            "until": wall_text(hold.until_wall) if hold and hold.until_wall else None,
        }

    def ended(self, id: InstanceId) -> Mapping[str, Any]:
        its = self._running.counts.of(id)
        return {
            **{state.value: its.ended.get(state, 0) for state in ENDS},
            "reasons": dict(its.reasons),
            "last_sent": None if its.sent_wall is None else wall_text(its.sent_wall),
        }

    async def take(self, call: Call, order: Order) -> Awaitable[web.StreamResponse]:
        store = await self._running.opened(OPENS_WITHIN)
        view, wait = call.supervisor.view(call.id), float(call.query.get("wait", 0))
        born = view.instance.created_wall
        if order.whose:
            # An agent without an outbox may have sent it, not long ago.
            sent = await call.parts.answers.earlier(order.whose, order.digest, born=born)
            if sent is not None:
                return _now(answer_sent(sent, again=True))
        new, content = self._make(call.id, order, born)
        size = len(new.content) + len(content) // 4 * 3
        self._must_fit(call.id, size)
        self._coming[call.id] += 1
        self._coming_bytes += size
        try:
            taken = await self._keep(store, new, content, wait)
        finally:
            self._coming[call.id] -= 1
            self._coming_bytes -= size
        failpoint("outbox_accepted")
        return self._answer(taken, wait)

    def _make(self, id: InstanceId, order: Order, born: float) -> tuple[NewMessage, str]:
        """The row, and the content of its file, which has a place of its own."""
        now, name = self._running.clock.now(), f"out_{secrets.token_hex(12)}"
        message = {"key": hash_of((name,), born), **order.message}
        message["to"] = check_receiver(str(message["to"]))
        content = message.get("content", "")
        apart = content if isinstance(content, str) and len(content) > LONGEST_INSIDE else ""
        if apart:
            del message["content"]
        expires = order.expires_in or self._limits.expires_hours * HOUR
        text = json.dumps(message, separators=(",", ":"))
        row = OutMessage(
            number=0,
            id=name,
            instance=id,
            born=born,
            chat=chat_of(str(message["to"])),
            type=str(message["type"]),
            state=State.ACCEPTED,
            accepted_wall=now,
            expires_wall=now + expires,
            changed_wall=now,
            repeats=hash_of(order.whose, born) if order.whose else "",
            digest=order.digest,
            file=name if apart else "",
            size=len(text) + len(apart) // 4 * 3,
        )
        return NewMessage(row, text), apart

    def _must_fit(self, id: InstanceId, size: int) -> None:
        sender, limits = self._running.senders.get(id), self._limits
        count = self._coming[id] + (0 if sender is None else sender.queue.count)
        if count >= limits.outbox_most:
            raise TooManyWait(
                f"cannot take the message: {count} messages of {id} wait to be sent, at most"
                f" {limits.outbox_most} may ([messages] outbox_most); wa-agent why {id} says why"
            )
        waiting = self._running.bytes + self._coming_bytes
        if waiting + size > limits.outbox_megabytes << 20:
            raise NoRoom(
                f"cannot take the message: what waits to be sent has {waiting} bytes, at most"
                f" {limits.outbox_megabytes} MiB may wait ([messages] outbox_megabytes)"
            )

    async def _keep(self, store: OutboxStore, new: NewMessage, content: str, wait: float) -> Taken:
        running, ends = self._running, []

        def committed(result: tuple[OutMessage, bool]) -> None:
            row, again = result
            if not again and not running.add(row, impatient=wait > 0):
                return
            if wait and row.state is State.ACCEPTED:
                ends.append(running.waiters.add(row.id))

        if content:
            await asyncio.to_thread(running.files.write, new.row.file, content)
        failpoint("outbox_file")
        kept = False
        try:
            row, again = await store.take(new, committed)
            kept = not again
        finally:
            if content and not kept:
                await asyncio.to_thread(running.files.remove, new.row.file)
        sender = running.senders.get(row.instance)
        waits = sender.hold.sentence if sender is not None and sender.hold is not None else ""
        return Taken(row, again, waits, ends[0] if ends else None)

    async def _answer(self, taken: Taken, wait: float) -> web.StreamResponse:
        try:
            return await answer_to(taken, wait)
        finally:
            if taken.end is not None:
                self._running.waiters.remove(taken.row.id, taken.end)
                sender = self._running.senders.get(taken.row.instance)
                if sender is not None and not taken.again:
                    sender.lose_patience(taken.row.number)

    async def page(
        self, id: InstanceId, state: str, before: str, limit: int
    ) -> tuple[Sequence[OutMessage], Mapping[int, str]]:
        """Newest first, and why those that wait do; `before`: the id of the last one seen."""
        store = await self._running.opened(OPENS_WITHIN)
        number = (await self.find(id, before)).number if before else 0
        rows = await store.page(id, state=state, before=number, limit=limit)
        return rows, self.why(id, rows)

    def why(self, id: InstanceId, rows: Sequence[OutMessage]) -> Mapping[int, str]:
        """By their numbers, why those that wait do so."""
        sender = self._running.senders.get(id)
        if sender is None:
            return {}
        hold = sender.hold or sender.paced
        if hold is not None:
            return {row.number: hold.sentence for row in rows}
        return {each.number: each.held for each in sender.queue if each.held}

    async def find(self, id: InstanceId, message: str) -> OutMessage:
        store = await self._running.opened(OPENS_WITHIN)
        row = await store.find(id, message)
        if row is None:
            raise NotFound(
                f"cannot find the message {message}: the outbox of {id} has none of that id;"
                f" messages that ended are shown for 72 hours (wa-agent outbox {id})",
                code="message_unknown",
            )
        return row

    async def cancel(self, id: InstanceId, message: str) -> OutMessage:
        row = await self.find(id, message)
        waiting = self._running.find(row)
        if row.state is not State.ACCEPTED or waiting is None:
            raise Refused(
                f"cannot cancel {message}: it is {row.state.value} already", code="message_ended"
            )
        await self._running.cancel(row.instance, waiting)
        return await self.find(id, message)


async def _now(answer: web.Response) -> web.StreamResponse:
    return answer
