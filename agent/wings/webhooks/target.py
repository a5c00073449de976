"""The target of one webhook: its connection, opened when needed, and the count of tries."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agent.core.model import InstanceId, JournalEntry
from agent.errors import ConfigError
from agent.wings.webhooks.deliveries import (
    Answer,
    Result,
    body_of,
    body_of_record,
    delivery_name,
    record_delivery,
)
from agent.wings.webhooks.request import Reply, RequestLine
from agent.wings.webhooks.webhook import Webhook


class Target:
    def __init__(self, webhook: Webhook, *, connections: int = 2) -> None:
        """`connections`: so many posts may be under way."""
        self._webhook = webhook
        self._declared = webhook.declared
        self._line: RequestLine | None = None
        self._stale = False
        self._connections = connections
        self._opening = asyncio.Lock()

    def reopen(self) -> None:
        """Read its secret and its certificates again before the next try."""
        self._stale = True

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()
            self._line = None

    async def send(self, entry: JournalEntry) -> Reply:
        body = body_of(entry, self._webhook.machine, self._webhook.version)
        return await self.post(body, entry.kind, delivery_name(entry))

    async def send_record(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        body = body_of_record(id, record, self._webhook.machine, self._webhook.version)
        return await self.post(body, str(record["kind"]), record_delivery(id, record))

    async def post(self, body: bytes, event: str, delivery: str) -> Reply:
        try:
            line = await self._opened()
        except ConfigError as error:
            # Unsigned would be worse than late: the receiver could not tell it from a forgery.
            reply = Reply(Answer.LATER, problem=str(error))
        else:
            reply = await line.post(body, event, delivery)
        taken = reply.answer is Answer.TAKEN
        self._webhook.results[Result.DELIVERED if taken else Result.FAILED] += 1
        return reply

    async def _opened(self) -> RequestLine:
        async with self._opening:
            if self._stale:
                await self.close()
            self._stale = False
            if self._line is None:
                self._line = await RequestLine.open(
                    self._declared, self._webhook.version, connections=self._connections
                )
            return self._line
