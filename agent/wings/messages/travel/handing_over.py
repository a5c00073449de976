"""Messages of a session that another machine has by now go there: what waits, and what is known of
the others. Each is deleted here when it is on the disk there, where its id makes it one."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent.core.model import InstanceId
from agent.daemon.wing_parts import OwnerMachines
from agent.errors import NotFound, TryLater, WaError
from agent.failpoint import failpoint
from agent.log import about
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.session.sender import SessionSender
from agent.wings.messages.out.session.sessions import Sessions
from agent.wings.messages.out.states import State
from agent.wings.messages.travel.document import Travelling, content_of, document_of

if TYPE_CHECKING:
    from agent.wings.messages.out.running import Running
    from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

PATH = "/api/fleet/outbox"
LOOK_EVERY = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
MOST = 100
"""Messages of one request."""
LARGEST = 512 * 1024
"""Bytes of what they say, besides one that is longer by itself."""


class HandingOver:
    def __init__(self, running: "Running", sessions: Sessions, owners: OwnerMachines) -> None:
        self._running = running
        self._sessions = sessions
        self._owners = owners
        self._due: dict[InstanceId, float] = {}
        """Sessions of which something is here, and when they are tried next."""
        self._pauses: dict[InstanceId, float] = {}
        self._said: dict[InstanceId, str] = {}
        self._over: dict[InstanceId, asyncio.Event] = {}

    def add(self, id: InstanceId) -> None:
        """It may be on another machine."""
        self._due[id] = 0.0
        self._pauses.pop(id, None)

    async def wait(self, id: InstanceId) -> None:
        """Until nothing of the session is here."""
        over = self._over.setdefault(id, asyncio.Event())
        self.add(id)
        try:
            await over.wait()
        finally:
            self._over.pop(id, None)

    async def run(self, store: "OutboxStore") -> None:
        for id in await store.instances():
            self.add(id)
        while True:
            now = time.monotonic()
            for id in [id for id, due in self._due.items() if due <= now]:
                await self._look(store, id)
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self, store: "OutboxStore", id: InstanceId) -> None:
        if is_here(self._sessions, id):
            self._end(id)
            return
        try:
            count = await self._hand_over(store, id)
        except (WaError, TimeoutError) as error:
            pause = self._pauses[id] = min(self._pauses.get(id, FIRST_PAUSE) * 2, LONGEST_PAUSE)
            self._due[id] = time.monotonic() + pause
            if pause > LONGEST_PAUSE / 2 and self._said.get(id) != str(error):
                self._said[id] = str(error)
                log.warning("messages to send wait on this machine: %s", error, extra=about(id))
            return
        self._end(id)
        if count:
            log.info("%d messages went to the machine of their session", count, extra=about(id))

    def _end(self, id: InstanceId) -> None:
        for known in (self._due, self._pauses, self._said):
            known.pop(id, None)
        if (over := self._over.get(id)) is not None:
            over.set()

    async def _hand_over(self, store: "OutboxStore", id: InstanceId) -> int:
        """How many that waited. What is being sent at this moment comes with the next try."""
        count = 0
        with reserved(self._running.senders.get(id)) as (waiting, busy):
            rows = {row.number: row for row in await store.waiting_of(id)}
            left = [rows[number] for number in waiting if number in rows]
            while left:
                batch = _cut(left)
                left = left[len(batch) :]
                sent = [
                    Travelling(row, await content_of(store, self._running.files, row))
                    for row in batch
                ]
                await self._send(store, id, sent)
                count += len(sent)
        if busy:
            raise TryLater(f"messages of {id} are being sent", code="busy")
        while rest := await store.page(id, limit=MOST):
            await self._send(store, id, [Travelling(row) for row in rest])
        await self._send_cursor(store, id)
        return count

    async def _send(self, store: "OutboxStore", id: InstanceId, sent: Sequence[Travelling]) -> None:
        answer = await self._ask(id, {"messages": [document_of(each) for each in sent]})
        failpoint("outbox_handed_over")
        refused = answer.get("refused")
        refused = refused if isinstance(refused, dict) else {}
        gone = [each.row for each in sent if each.row.id not in refused]
        await store.forget([row.number for row in gone])
        await asyncio.to_thread(self._running.files.remove, *(row.file for row in gone))
        for row in gone:
            self._running.left(row, End())
        for row in [each.row for each in sent if each.row.id in refused]:
            why = str(refused[row.id])
            told = {"reason": "deleted", "sentence": why, "changed_wall": time.time()}
            if row.state is State.ACCEPTED:
                await store.end(row.number, State.FAILED, **told)
                error = NotFound(f"cannot send {row.id}: {why}", field="id")
                self._running.left(row, End(error=error))
            await store.forget([row.number])

    async def _send_cursor(self, store: "OutboxStore", id: InstanceId) -> None:
        """Up to where its acknowledgements were read."""
        cursor = (await store.cursors()).get(id)
        if cursor is not None:
            await self._ask(id, {"messages": [], "cursor": cursor})
            await store.note_acks([], {id: None})

    async def _ask(self, id: InstanceId, body: Mapping[str, Any]) -> Mapping[str, Any]:
        raw = await asyncio.to_thread(lambda: json.dumps({"instance": id, **body}).encode())
        status, answer = await self._owners.ask_owner(id, PATH, raw)
        if status != 200:
            raise TryLater(
                f"the machine of {id} does not take them: {answer.get('message', status)}",
                code="not_owner",
            )
        return answer


def is_here(sessions: Sessions, id: InstanceId) -> bool:
    try:
        sessions.view(id)
    except NotFound:
        return False
    return True


def _cut(rows: Sequence[OutMessage]) -> Sequence[OutMessage]:
    size, batch = 0, list[OutMessage]()
    for row in rows[:MOST]:
        size += row.size
        if batch and size > LARGEST:
            break
        batch.append(row)
    return batch


@contextmanager
def reserved(sender: SessionSender | None) -> Iterator[tuple[list[int], bool]]:
    """Hold all messages of a session that wait: meanwhile nobody sends, cancels or expires them.
    Their numbers, in their order, and whether others of the session are being sent."""
    if sender is None:
        yield [], False
        return
    queued = sorted(sender.queue, key=lambda waiting: waiting.number)
    held = [waiting for waiting in queued if sender.queue.reserve(waiting)]
    try:
        yield [waiting.number for waiting in held], len(held) < len(queued)
    finally:
        for waiting in held:
            if not waiting.gone:
                sender.queue.put_back(waiting, waiting.due)
        sender.wake()
