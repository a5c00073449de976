"""Hands each journal entry to all listeners. Publishing never waits. A listener that does not keep
up is dropped with a reason; it can come back and read the missed entries from the journal."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent.core.model import InstanceId, JournalEntry


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The entries that a listener wants; an empty set means all."""

    instances: frozenset[InstanceId] = frozenset()
    kinds: frozenset[str] = frozenset()

    def matches(self, entry: JournalEntry) -> bool:
        return (not self.instances or entry.instance in self.instances) and (
            not self.kinds or entry.kind in self.kinds
        )


EVERYTHING = EventFilter()
NOTHING = EventFilter(kinds=frozenset({""}))


class Subscription:
    """One listener's bounded queue. It ends when closed or dropped; `dropped` says why."""

    def __init__(
        self, wanted: EventFilter, limit: int, forget: Callable[["Subscription"], None]
    ) -> None:
        self.wanted = wanted
        self.dropped = ""
        self._limit = limit
        self._forget = forget
        self._waiting: deque[JournalEntry] = deque()
        self._filled = asyncio.Event()
        self._over = asyncio.Event()

    def offer(self, entry: JournalEntry) -> None:
        if self._over.is_set() or not self.wanted.matches(entry):
            return
        if len(self._waiting) >= self._limit:
            # The waiting entries are dropped too: delivered now they would hide the gap. A listener
            # that resumes by cursor gets them in order from the journal.
            self._waiting.clear()
            self.end(f"too slow: {self._limit} events were waiting")
            return
        self._waiting.append(entry)
        self._filled.set()

    async def get(self) -> JournalEntry | None:
        """Return the next entry; None at the end. May be cancelled without loss."""
        while not self._waiting:
            if self._over.is_set():
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()

    async def __aiter__(self) -> AsyncIterator[JournalEntry]:
        while (entry := await self.get()) is not None:
            yield entry

    async def ended(self) -> None:
        """Return at the end, also while a delivery is under way."""
        await self._over.wait()

    def offer_passing(self, entry: JournalEntry) -> None:
        """Offer an event that is not in the journal; a full queue drops it."""
        if entry.kind in self.wanted.kinds and len(self._waiting) < self._limit // 2:
            self.offer(entry)

    def end(self, reason: str = "") -> None:
        if self._over.is_set():
            return
        self._over.set()
        self.dropped = reason
        self._filled.set()
        self._forget(self)

    close = end


class EventBus:
    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._subscriptions: set[Subscription] = set()

    def subscribe(
        self, wanted: EventFilter = EVERYTHING, *, limit: int | None = None
    ) -> Subscription:
        subscription = Subscription(wanted, limit or self._limit, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    def publish(self, entry: JournalEntry) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.offer(entry)

    def wants(self, kind: str) -> bool:
        """True if a listener named this kind."""
        return any(kind in subscription.wanted.kinds for subscription in self._subscriptions)

    def publish_passing(self, entry: JournalEntry) -> None:
        """Publish an event too frequent for the journal: its cursor is 0, and it is read once."""
        for subscription in tuple(self._subscriptions):
            subscription.offer_passing(entry)

    def close(self, reason: str = "the agent stops") -> None:
        for subscription in tuple(self._subscriptions):
            subscription.end(reason)
