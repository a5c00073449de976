"""What runs in the agent for messages: tells workers what was delivered, and counts."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

from agent.config import Config
from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around, MessageSource
from agent.metrics.text import Family
from agent.supervise.requests.message_page import KeptState
from agent.wings.messages.metrics import message_samples
from agent.wings.messages.readers import Readers

LOOK_EVERY = 10.0
"""Seconds, at least, between two looks at what was settled: a busy session costs no more."""
_AT_ONCE = 16


def open_part(around: Around) -> "MessagesPart":
    return MessagesPart(around.messages, Readers(around.store, around.messages))


class MessagesPart:
    def __init__(self, source: MessageSource, readers: Readers) -> None:
        self.source = source
        self.readers = readers

    async def run(self) -> None:
        changes = self.source.follow()
        try:
            await self.readers.load()
            ids: Collection[InstanceId] = self.source.sessions()
            while True:
                turns = asyncio.Semaphore(_AT_ONCE)
                await asyncio.gather(*(self._settle(id, turns) for id in ids))
                await asyncio.sleep(LOOK_EVERY)
                ids = await changes.next()
        finally:
            changes.close()

    async def _settle(self, id: InstanceId, turns: asyncio.Semaphore) -> None:
        async with turns:
            await self.source.ask_state(id)
            await self.source.tell_settled(id)

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {"messages": self.run}

    def reload(self, config: Config) -> None: ...

    def samples(self) -> Iterator[tuple[Family, str]]:
        return message_samples(self.figures())

    def figures(self) -> Mapping[InstanceId, KeptState]:
        return self.source.states()
