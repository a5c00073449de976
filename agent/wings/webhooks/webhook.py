"""A declared webhook, and what all that carries to it shares."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.model import Category, JournalEntry
from agent.store.database import Store
from agent.wings.webhooks.deliveries import Pace, Result
from agent.wings.webhooks.settings import WebhookDeclaration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    declared: WebhookDeclaration
    store: Store
    results: Counter[Result]
    machine: str
    version: str
    pace: Pace
    jitter: Callable[[], float] = random.random

    @property
    def name(self) -> str:
        return self.declared.name

    async def report(self, kind: str, sentence: str, *, bad: bool = False) -> None:
        text = f"webhook {self.name}: {sentence}"
        log.log(logging.WARNING if bad else logging.INFO, "%s", text)
        detail = {"webhook": self.name}
        entry = JournalEntry(kind, text, Category.SYSTEM, None, time.time(), detail)
        await self.store.note(entry)
