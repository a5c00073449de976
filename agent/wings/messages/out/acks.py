"""Acknowledgements on their way into the outbox's file, many in one commit: as the agent hears
them, and as the sessions' workers keep them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.core.model import InstanceId
from agent.errors import StoreError, WaError
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.messages.out.rows import Ack
from agent.wings.messages.out.store import OutboxStore

log = logging.getLogger(__name__)

AT_ONCE = 500
LOOK_EVERY = 5.0
"""Seconds, at least, between two looks."""
PAGE = 500
KIND = "message_ack"


class AckNotes:
    def __init__(self, store: Callable[[], OutboxStore | None]) -> None:
        self._store = store
        self._acks: deque[Ack] = deque()
        self._some = asyncio.Event()

    def add(self, ack: Ack) -> None:
        if ack.message_id:
            self._acks.append(ack)
            self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._acks and (store := self._store()) is not None:
                some = [self._acks.popleft() for _ in range(min(len(self._acks), AT_ONCE))]
                try:
                    await store.note_acks(some)
                except StoreError as error:
                    log.error("%d acknowledgements are not noted: %s", len(some), error)


class KeptAcks:
    """Also those that came while no agent ran, or while a worker could not reach it."""

    def __init__(self, messages: KeptMessages) -> None:
        self._messages = messages
        self._cursors: dict[InstanceId, int] = {}

    async def run(self, store: OutboxStore) -> None:
        changes = self._messages.follow()
        try:
            self._cursors = await store.cursors()
            # The agent before this one may have ended before it read its first page: from the
            # oldest record on.
            ids: Iterable[InstanceId] = await store.followed()
            for id in ids:
                self._cursors.setdefault(id, 0)
            while True:
                for id in ids:
                    await self._read(store, id)
                await asyncio.sleep(LOOK_EVERY)
                ids = await changes.next()
        finally:
            changes.close()

    async def _read(self, store: OutboxStore, id: InstanceId) -> None:
        if not await store.follows(id):
            if self._cursors.pop(id, None) is not None:
                await store.note_acks([], {id: None})
            return
        if id not in self._cursors and (at := (await store.cursors()).get(id)) is not None:
            self._cursors[id] = at  # it came with its session
        more = True
        while more:
            try:
                page = await self._messages.page(id, self._cursors.get(id), limit=PAGE)
            except WaError:
                return  # no worker runs, or it keeps nothing: a change comes when that is over
            acks = [ack for record in page.records for ack in _ack_of(id, record)]
            if acks or page.next != self._cursors.get(id):
                await store.note_acks(acks, {id: page.next})
            self._cursors[id], more = page.next, page.more


def _ack_of(id: InstanceId, record: Mapping[str, Any]) -> Iterable[Ack]:
    if record.get("kind") == KIND:
        at = record.get("at")
        wall = float(at) if isinstance(at, int | float) else 0.0
        yield Ack(id, str(record.get("message_id", "")), str(record.get("state", "")), wall)
