"""All webhooks: a courier each, begun again by a reload; their routes and metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agent import errors, log
from agent.api.handlers.events import unknown_kinds
from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, route
from agent.config.config import Config
from agent.core import model, session, words
from agent.deliver.bus import EventBus
from agent.messages.reader import Reader
from agent.metrics.exporter import Family
from agent.store.database import Store
from agent.webhooks.settings import WebhookDeclaration, webhooks_of

if TYPE_CHECKING:
    from agent.webhooks.courier import Courier

RESULTS, _KIND = ("delivered", "failed", "dead", "expired"), {"kind": "webhook"}

Read = tuple[Store, EventBus, Reader, Mapping[words.InstanceId, session.Session]]
"""The parts that couriers read."""


def check_kinds(config: Config) -> None:
    """ConfigError: no event is of a kind that a webhook names. A start goes on without it, for no
    session shall wait for it; a reload keeps the old settings."""
    for fault in (it for row in webhooks_of(config) for it in unknown_kinds(row.name, row.kinds)):
        raise errors.ConfigError(fault, field="webhook.kinds")


class Webhooks:
    def __init__(self, config: Config, read: Read) -> None:
        self._read, self._reader, self._changed = read, read[2], asyncio.Event()
        self._results: Counter[str] = Counter()
        """Counts since the agent's start, also of removed webhooks: a counter never falls."""
        self._couriers: dict[str, Courier] = {}
        self._gone: list[Courier] = []
        with log.going_on():
            check_kinds(config)
        self.reload(config)

    def reload(self, config: Config) -> None:
        """Begin all couriers again, each from its cursors; they read their files again."""
        before, declared = self._couriers, webhooks_of(config)
        # From now on nothing counts as taken by all that one of these has not taken.
        self._reader.consumers = {row.name: row.chooses for row in declared if row.message_kinds}
        self._couriers = {row.name: self._open(row) for row in declared}
        self._gone += [courier for name, courier in before.items() if name not in self._couriers]
        self._changed.set()

    def _open(self, declared: WebhookDeclaration) -> "Courier":
        from agent.webhooks.courier import Courier  # for the first webhook

        return Courier(declared, self._results, self._read)

    async def run(self) -> None:
        while True:
            self._changed.clear()
            while self._gone:
                await self._gone.pop().say_gone()
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(courier.run()) for courier in self._couriers.values()]
                await self._changed.wait()
                for task in running:
                    task.cancel()

    def views(self) -> list[dict[str, Any]]:
        return [self._couriers[name].view() for name in sorted(self._couriers)]

    def oldest(self) -> tuple[float, str] | None:
        """Unix time of the oldest event that waits, and its webhook; None: none waits."""
        every = ((it.oldest_wall, name) for name, it in self._couriers.items())
        return min(((wall, it) for wall, it in every if wall is not None), default=None)

    def families(self) -> Iterator[Family]:
        tries = [({"result": result}, self._results[result]) for result in RESULTS]
        yield Family("wa_agent_webhook_deliveries_total", "Tries of webhooks by result.", tries)
        waiting = sum(courier.waiting for courier in self._couriers.values())
        yield Family("wa_agent_outbox_length", "Events queued for webhooks.", [(_KIND, waiting)])

    def retry(self, name: str) -> None:
        """Close a webhook's circuit and try now."""
        self._find(name).retry()

    async def test(self, name: str) -> dict[str, Any]:
        """Send a test event now, before all waiting ones."""
        from agent.webhooks.courier import pack_event

        kind, sentence = "webhook_test", "a test that an operator sent"
        entry = model.JournalEntry(kind, sentence, words.Category.SYSTEM, None, time.time())
        begun = time.monotonic()
        reply = await self._find(name).post(pack_event(entry))
        said = {"delivered": reply.taken, "status": reply.status, "problem": reply.problem}
        return {**said, "seconds": round(time.monotonic() - begun, 3), "said": reply.said}

    def _find(self, name: str) -> "Courier":
        if name not in self._couriers:
            raise errors.NotFound(f"cannot find webhook {name}: agent.toml has none of that name")
        return self._couriers[name]


async def list_webhooks(call: Call) -> Json:
    """The webhooks, and what waits."""
    return {"webhooks": call.parts.webhooks.views()}


async def test(call: Call) -> Json:
    """Send a test event now, and show the answer.

    200 also without a delivery: the answer has the target's status or the error."""
    return await call.parts.webhooks.test(call.request.match_info["name"])


async def retry(call: Call) -> Json:
    """Close a circuit and send now.

    Answered before the tries; the list of webhooks shows their results."""
    call.parts.webhooks.retry(call.request.match_info["name"])
    return {"look": "/api/webhooks"}


_ONE = f"/api/webhooks/{{name:{words.ID_PATTERN}}}"
ROUTES = (
    route("GET /api/webhooks", Right.READ, list_webhooks),
    route(f"POST {_ONE}/test", Right.OPERATE, test, ()),
    route(f"POST {_ONE}/retry", Right.OPERATE, retry, (), answers=(202,)),
)
