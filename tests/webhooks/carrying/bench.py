"""A store, its bus, sessions in memory, and webhooks that can be ended and begun again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.config.config import Config
from agent.core.model import InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.metrics.exporter import render
from agent.store.database import Store
from agent.webhooks.part import Webhooks
from agent.webhooks.settings import WebhookDeclaration
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.webhooks.receiver import Receiver


def settings(*declared: WebhookDeclaration) -> Config:
    return Config(rows={"webhook": declared})


def hook(target: Receiver, name: str = "ops", **more: Any) -> WebhookDeclaration:
    return WebhookDeclaration(name, **{"url": target.url, "private": True, "timeout": 30.0, **more})


def only(webhooks: Webhooks) -> dict[str, Any]:
    (view,) = webhooks.views()
    return view


def results(webhooks: Webhooks) -> dict[str, float]:
    """By the names of the samples."""
    lines = [line for line in render(webhooks.families()).decode().splitlines() if line[0] != "#"]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def delivered(result: str) -> str:
    return f'wa_agent_webhook_deliveries_total{{result="{result}"}}'


@dataclass
class Bench:
    store: Store
    bus: EventBus
    messages: FakeMessages
    eventually: Eventually
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    def open(self, *declared: WebhookDeclaration) -> Webhooks:
        read = (self.store, self.bus, self.messages.reader, self.messages.sessions)
        return Webhooks(settings(*declared), read)

    async def begin(self, *declared: WebhookDeclaration) -> Webhooks:
        """Start a courier: events and messages from here on are sent."""
        one = self.open(*declared)
        self._running.append(asyncio.create_task(one.run()))
        facts = [f"webhook.{each.name}" for each in declared]
        for each in declared:
            ids = filter(each.chooses, self.messages.sessions if each.message_kinds else ())
            facts += [self.fact(each.name, id) for id in ids if self.messages.here(id)]
        for fact in facts:
            await self.eventually(self._is_there(fact))
        return one

    def fact(self, webhook: str, id: str) -> str:
        """The name of the session's cursor."""
        instance = self.messages.sessions[InstanceId(id)].instance
        return f"webhook_message.{webhook}.{id}.{instance.created_wall}"

    def _is_there(self, fact: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return await self.store.get_fact(fact) is not None

        return look

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._running.clear()

    async def say(self, sentence: str, kind: str = "status", **more: Any) -> JournalEntry:
        (stored,) = await self.store.append(JournalEntry(kind, sentence, **more))
        return stored

    async def told(self, kind: str) -> list[str]:
        """The sentences of a kind in the journal, oldest first."""
        return [one.sentence for one in await self.store.history(after=0, kinds=[kind])]
