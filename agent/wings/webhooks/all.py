"""All webhooks: a courier each, woken by the bus, changed by a reload."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent import VERSION
from agent.config import Config
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.view import InstanceView
from agent.daemon.wing_parts import Around
from agent.deliver.bus import EventBus
from agent.errors import NotFound
from agent.messages.reader import Reader
from agent.metrics.text import Family
from agent.store.database import Store
from agent.wings.webhooks.metrics import RESULTS, webhook_samples
from agent.wings.webhooks.settings import (
    WebhookDeclaration,
    consumer_of,
    gets_messages_of,
    message_kinds,
    webhooks_of,
)
from agent.wings.webhooks.view import Trial, WebhookFigures, WebhookView

if TYPE_CHECKING:
    from agent.wings.webhooks.courier import Courier

_SAID = 200
"""Characters of an answer to a test event that are shown."""


def open_part(around: Around) -> "Webhooks":
    declared, views = webhooks_of(around.config), around.supervisor.views
    sender = (socket.gethostname(), VERSION)
    return Webhooks(declared, around.store, around.bus, around.reader, sender=sender, views=views)


class Webhooks:
    def __init__(
        self,
        declared: Sequence[WebhookDeclaration],
        store: Store,
        bus: EventBus,
        reader: Reader,
        *,
        sender: tuple[str, str],
        views: Callable[[], Mapping[InstanceId, InstanceView]],
    ) -> None:
        """`sender`: machine and version."""
        self._declared = tuple(declared)
        self._store, self._bus, self._sender, self._reader = store, bus, sender, reader
        self._views = views
        self._results: Counter[str] = Counter()
        """Since the agent's start, also of removed webhooks: a counter never falls."""
        self._couriers: dict[str, Courier] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._some = asyncio.Event()
        """Set while there is a webhook; without webhooks the bus has no listener here."""
        for webhook in self._declared:
            self._announce(webhook)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.apply(self._declared)
            while True:
                await self._some.wait()
                await self._pass_on()

    async def _pass_on(self) -> None:
        subscription = self._bus.subscribe()
        try:
            self._look()
            async for _ in subscription:
                self._look()
        finally:
            subscription.close()

    def _look(self) -> None:
        for courier in self._couriers.values():
            courier.look()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {"webhooks": self.run}

    def reload(self, config: Config) -> None:
        self.apply(webhooks_of(config))

    def samples(self) -> Iterator[tuple[Family, str]]:
        return webhook_samples(self.figures())

    def apply(self, declared: Sequence[WebhookDeclaration]) -> None:
        """Start new and changed webhooks, end removed ones; every cursor stays in the database."""
        self._declared = tuple(declared)
        if self._group is None:
            return
        wanted = {webhook.name: webhook for webhook in declared}
        for name in [name for name in self._couriers if name not in wanted]:
            courier = self._couriers.pop(name)
            if courier.view().waiting:
                self._group.create_task(courier.say_gone(), name=f"{name} is gone")
            self._reader.forget_consumer(consumer_of(courier.declared))
            self._running.pop(name).cancel()
        for name, webhook in wanted.items():
            before = self._running.get(name)
            if before is not None and self._couriers[name].declared == webhook:
                self._couriers[name].reopen()
                continue
            if before is not None:
                before.cancel()
            run = _after(before, self._make(webhook).run)
            self._running[name] = self._group.create_task(run, name=f"webhook {name}")
        if wanted:
            self._some.set()
        else:
            self._some.clear()

    def _make(self, declared: WebhookDeclaration) -> "Courier":
        from agent.wings.webhooks.courier import Courier  # for the first webhook

        self._reader.forget_consumer(consumer_of(declared))
        self._announce(declared)
        courier = Courier(
            declared, self._store, self._reader, self._results, self._sender, views=self._views
        )
        self._couriers[declared.name] = courier
        return courier

    def _announce(self, webhook: WebhookDeclaration) -> None:
        """From now on nothing counts as taken by all that this webhook has not taken."""
        if message_kinds(webhook):
            self._reader.consume(consumer_of(webhook), partial(gets_messages_of, webhook))

    def views(self) -> Sequence[WebhookView]:
        return [self._couriers[name].view() for name in sorted(self._couriers)]

    def figures(self) -> WebhookFigures:
        views = self.views()
        oldest = [view.oldest_wall for view in views if view.oldest_wall is not None]
        return WebhookFigures(
            {result: self._results[result] for result in RESULTS},
            sum(view.waiting for view in views),
            min(oldest, default=None),
        )

    async def retry(self, name: str) -> None:
        """Close its circuit and try now."""
        self._find(name).retry()
        await self._note(name, "an operator asked for a try now")

    async def test(self, name: str) -> Trial:
        """Send a test event now, before all waiting ones. ConfigError: its files cannot be read."""
        from agent.wings.webhooks.post import Answer, RequestLine, parcel_of

        declared = self._find(name).declared
        sentence = "a test that an operator sent"
        entry = JournalEntry("webhook_test", sentence, Category.SYSTEM, None, time.time())
        line = await RequestLine.open(declared, self._sender[1])
        begun = time.monotonic()
        try:
            reply = await line.post(parcel_of(entry, *self._sender))
        finally:
            await line.close()
        result = f"it answered {reply.status}" if reply.status else reply.problem
        await self._note(name, f"an operator sent a test: {result}")
        seconds, taken = time.monotonic() - begun, reply.answer is Answer.TAKEN
        return Trial(taken, reply.status, reply.problem, seconds, reply.said[:_SAID])

    def _find(self, name: str) -> "Courier":
        if name not in self._couriers:
            names = ", ".join(sorted(self._couriers)) or "none"
            raise NotFound(f"cannot find the webhook {name}; declared: {names}")
        return self._couriers[name]

    async def _note(self, name: str, sentence: str) -> None:
        text = f"webhook {name}: {sentence}"
        await self._store.append(
            JournalEntry("operator", text, Category.SYSTEM, None, time.time(), {"webhook": name})
        )


async def _after(before: asyncio.Task[None] | None, run: Callable[[], Awaitable[None]]) -> None:
    """Start after the courier before it: two couriers would both write the cursor."""
    if before is not None:
        await asyncio.wait([before])
    await run()
