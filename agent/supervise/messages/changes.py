"""The sessions that have more to read, for one who follows them."""

import asyncio
from collections.abc import Callable

from agent.core.model import InstanceId


class MessageChanges:
    """The sessions that have more to read, or may have."""

    def __init__(self, forget: Callable[["MessageChanges"], None]) -> None:
        self._forget = forget
        self._ids: set[InstanceId] = set()
        self._filled = asyncio.Event()

    def add(self, id: InstanceId) -> None:
        self._ids.add(id)
        self._filled.set()

    async def next(self) -> frozenset[InstanceId]:
        """At least one; may be cancelled without loss."""
        await self._filled.wait()
        self._filled.clear()
        ids, self._ids = frozenset(self._ids), set()
        return ids

    def close(self) -> None:
        self._forget(self)
