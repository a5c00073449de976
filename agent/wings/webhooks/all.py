"""All webhooks: one courier each, woken by the bus, changed by a reload."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import VERSION
from agent.config import Config
from agent.core.model import Category, JournalEntry
from agent.daemon.wing_parts import Around
from agent.deliver.bus import EventBus
from agent.errors import NotFound
from agent.metrics.text import Family
from agent.store.database import Store
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.webhooks.deliveries import (
    Answer,
    DeadLetter,
    Pace,
    Result,
    Trial,
    WebhookFigures,
    WebhookView,
    body_of,
    delivery_name,
)
from agent.wings.webhooks.metrics import webhook_samples
from agent.wings.webhooks.settings import (
    WebhookDeclaration,
    consumer_of,
    gets_messages_of,
    message_kinds,
    webhooks_of,
)
from agent.wings.webhooks.view import with_messages
from agent.wings.webhooks.webhook import Webhook

if TYPE_CHECKING:
    from agent.wings.webhooks.courier import Courier
    from agent.wings.webhooks.messages.carrier import MessageCarrier

_SAID = 200
"""Characters of an answer to a test event that are shown."""


def open_part(around: Around) -> "Webhooks":
    return Webhooks(
        webhooks_of(around.config),
        around.store,
        around.bus,
        machine=socket.gethostname(),
        version=VERSION,
        source=around.messages,
    )


class Webhooks:
    def __init__(
        self,
        declared: Sequence[WebhookDeclaration],
        store: Store,
        bus: EventBus,
        *,
        machine: str,
        version: str,
        pace: Pace | None = None,
        source: KeptMessages | None = None,
    ) -> None:
        """`source`: what arrives in sessions; None: no webhook gets any of it."""
        self._declared = tuple(declared)
        self._store = store
        self._bus = bus
        self._machine = machine
        self._version = version
        self._pace = pace or Pace()
        self._source = source
        self._results: Counter[Result] = Counter()
        """Since the agent's start, also of removed webhooks: a counter never falls."""
        self._couriers: dict[str, Courier] = {}
        self._carriers: dict[str, MessageCarrier] = {}
        """Of the webhooks that get messages."""
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
            for courier in self._couriers.values():
                courier.look()
            async for entry in subscription:
                for courier in self._couriers.values():
                    courier.offer(entry)
        finally:
            subscription.close()

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
            if (view := self._view(name)).waiting:
                self._group.create_task(self._couriers[name].say_gone(view), name=f"{name} is gone")
            del self._couriers[name]
            self._drop_carrier(name)
            self._running.pop(name).cancel()
        for name, webhook in wanted.items():
            before = self._running.get(name)
            if before is not None and self._couriers[name].declared == webhook:
                self._couriers[name].reopen()
                if name in self._carriers:
                    self._carriers[name].reopen()
                continue
            if before is not None:
                before.cancel()
            run = _after(before, self._make(webhook))
            self._running[name] = self._group.create_task(run, name=f"webhook {name}")
        if wanted:
            self._some.set()
        else:
            self._some.clear()

    def _make(self, declared: WebhookDeclaration) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs for it."""
        from agent.wings.webhooks.courier import Courier  # for the first webhook

        name = declared.name
        shared = (self._store, self._results, self._machine, self._version, self._pace)
        webhook = Webhook(declared, *shared)
        self._drop_carrier(name)
        self._announce(declared)
        courier = self._couriers[name] = Courier(webhook)
        runs = [courier.run]
        if self._source is not None and message_kinds(declared):
            from agent.wings.webhooks.messages.carrier import MessageCarrier

            carrier = self._carriers[name] = MessageCarrier(webhook, self._source)
            runs.append(carrier.run)
        return runs

    def _announce(self, webhook: WebhookDeclaration) -> None:
        """From now on nothing counts as taken by all that this webhook has not taken."""
        if self._source is not None and message_kinds(webhook):
            self._source.consume(consumer_of(webhook), partial(gets_messages_of, webhook))

    def _drop_carrier(self, name: str) -> None:
        carrier = self._carriers.pop(name, None)
        if carrier is not None and self._source is not None:
            self._source.forget_consumer(carrier.consumer)

    def views(self) -> Sequence[WebhookView]:
        return [self._view(name) for name in sorted(self._couriers)]

    def _view(self, name: str) -> WebhookView:
        view, carrier = self._couriers[name].view(), self._carriers.get(name)
        return view if carrier is None else with_messages(view, carrier)

    def figures(self) -> WebhookFigures:
        views = self.views()
        oldest = [view.oldest_wall for view in views if view.oldest_wall is not None]
        return WebhookFigures(
            {result.value: self._results[result] for result in Result},
            sum(view.waiting for view in views),
            min(oldest, default=None),
        )

    def dead(self, name: str) -> Sequence[DeadLetter]:
        letters, carrier = self._find(name).dead(), self._carriers.get(name)
        return letters if carrier is None else (*letters, *carrier.dead())

    async def retry(self, name: str) -> int:
        """Close its circuit and try now, also its dead letters; returns their number."""
        courier = self._find(name)
        count = courier.retry()
        if name in self._carriers:
            count += self._carriers[name].retry()
        await self._note(name, f"an operator asked for a try now, with {count} dead letters")
        return count

    async def test(self, name: str) -> Trial:
        """Send a test event now, before all waiting ones. ConfigError: its files cannot be read."""
        from agent.wings.webhooks.request import RequestLine

        declared = self._find(name).declared
        now = time.time()
        sentence = "a test that an operator sent"
        entry = JournalEntry("webhook_test", sentence, Category.SYSTEM, None, now)
        line = await RequestLine.open(declared, self._version)
        begun = time.monotonic()
        try:
            body = body_of(entry, self._machine, self._version)
            reply = await line.post(body, entry.kind, delivery_name(entry))
        finally:
            await line.close()
        taken = reply.answer is Answer.TAKEN
        result = f"it answered {reply.status}" if reply.status else reply.problem
        await self._note(name, f"an operator sent a test: {result}")
        seconds = time.monotonic() - begun
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


async def _after(
    before: asyncio.Task[None] | None, runs: Sequence[Callable[[], Coroutine[Any, Any, None]]]
) -> None:
    """Start after the courier before it: two couriers would both write the cursor."""
    if before is not None:
        await asyncio.wait([before])
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run())
