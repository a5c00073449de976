"""Hands each journal entry to whoever listens. Publishing never waits.

A listener that does not keep up is dropped with a reason; it can come back and read what
it missed from the journal. The others never notice.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.model import Category, InstanceId, JournalEntry


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What a listener wants; an empty set means everything."""

    instances: frozenset[InstanceId] = frozenset()
    kinds: frozenset[str] = frozenset()
    categories: frozenset[Category] = frozenset()

    def matches(self, entry: JournalEntry) -> bool:
        return (
            (not self.instances or entry.instance in self.instances)
            and (not self.kinds or entry.kind in self.kinds)
            and (not self.categories or entry.category in self.categories)
        )


EVERYTHING = EventFilter()


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
            # What waits is thrown away too: a listener that resumes by cursor gets it in
            # order from the journal, while a rest delivered now would hide the gap.
            self._waiting.clear()
            self.end(f"too slow: {self._limit} events were waiting")
            return
        self._waiting.append(entry)
        self._filled.set()

    async def get(self) -> JournalEntry | None:
        """The next entry; None when there will be no more. May be cancelled without loss."""
        while not self._waiting:
            if self._over.is_set():
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> JournalEntry:
        entry = await self.get()
        if entry is None:
            raise StopAsyncIteration
        return entry

    async def ended(self) -> None:
        """Return when there will be no more, however long a delivery under way still takes."""
        await self._over.wait()

    def offer_passing(self, entry: JournalEntry) -> bool:
        """Offer an event that is not in the journal; a full queue drops it."""
        if self._over.is_set() or entry.kind not in self.wanted.kinds:
            return True
        if len(self._waiting) >= self._limit // 2:
            return False
        self.offer(entry)
        return True

    def end(self, reason: str = "") -> None:
        if self._over.is_set():
            return
        self._over.set()
        self.dropped = reason
        self._filled.set()
        self._forget(self)

    def close(self) -> None:
        self.end()


class EventBus:
    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._subscriptions: set[Subscription] = set()
        self.dropped_total = 0
        self.left_out_total = 0
        """Passing entries that a listener did not get."""

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(
        self, wanted: EventFilter = EVERYTHING, *, limit: int | None = None
    ) -> Subscription:
        subscription = Subscription(wanted, limit or self._limit, self._forget)
        self._subscriptions.add(subscription)
        return subscription

    def publish(self, entry: JournalEntry) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.offer(entry)

    def wants(self, kind: str) -> bool:
        """Whether anybody named this kind."""
        return any(kind in each.wanted.kinds for each in self._subscriptions)

    def publish_passing(self, entry: JournalEntry) -> None:
        """Events too frequent for the journal: cursor 0, no listener can read them again."""
        for subscription in tuple(self._subscriptions):
            self.left_out_total += not subscription.offer_passing(entry)

    def close(self, reason: str = "the agent stops") -> None:
        """End every subscription: no further event comes."""
        for subscription in tuple(self._subscriptions):
            subscription.end(reason)

    def _forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if subscription.dropped.startswith("too slow"):
            self.dropped_total += 1
