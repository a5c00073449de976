"""What runs in the agent for messages: tells workers what was delivered, and counts."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

from agent.config import Config
from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.deliver.media import MediaReaders
from agent.metrics.text import Family
from agent.supervise.messages.kept_messages import KeptMessages
from agent.supervise.messages.page import KeptState
from agent.wings.messages.metrics import message_samples
from agent.wings.messages.readers import Readers

LOOK_EVERY = 10.0
"""Seconds, at least, between two looks at what was settled: a busy session costs no more."""
_AT_ONCE = 16


def open_part(around: Around) -> "MessagesPart":
    readers = Readers(around.store, around.messages)
    return MessagesPart(around.messages, readers)


class MessagesPart:
    def __init__(self, source: KeptMessages, readers: Readers) -> None:
        self.source = source
        self.readers = readers
        self.media = MediaReaders(source)

    async def run(self) -> None:
        changes = self.source.follow()
        try:
            await self.readers.load()
            ids: Collection[InstanceId] = self.source.sessions()
            while True:
                turns = asyncio.Semaphore(_AT_ONCE)
                await asyncio.gather(*(self._settle(id, turns) for id in ids))
                await self.source.save_highest()
                await asyncio.sleep(LOOK_EVERY)
                ids = await changes.next()
        finally:
            changes.close()
            await self.source.save_highest()

    async def _settle(self, id: InstanceId, turns: asyncio.Semaphore) -> None:
        async with turns:
            await self.source.ask_state(id)
            await self.source.tell_settled(id)

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {"messages": self.run}

    def reload(self, config: Config) -> None: ...

    def samples(self) -> Iterator[tuple[Family, str]]:
        yield from message_samples(self.figures())

    def figures(self) -> Mapping[InstanceId, KeptState]:
        return self.source.states()
