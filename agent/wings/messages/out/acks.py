"""Acknowledgements on their way into the outbox's file, many in one commit."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from agent.errors import StoreError
from agent.wings.messages.out.store import Ack, OutboxStore

log = logging.getLogger(__name__)

AT_ONCE = 500


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
