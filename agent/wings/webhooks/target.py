"""The target of one webhook: its connection, opened when needed, and the count of tries."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from agent.core.model import InstanceId, JournalEntry
from agent.daemon.wing_parts import Posting
from agent.errors import ConfigError, WaError
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

log = logging.getLogger(__name__)


class Target:
    def __init__(self, webhook: Webhook, *, connections: int = 2) -> None:
        """`connections`: so many posts may be under way."""
        self._webhook = webhook
        self._declared = webhook.declared
        self._form = webhook.form
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
        if self._form is not None:
            made = self._form.of_event(entry, self._declared.url)
            return await self._post_all(made, delivery_name(entry))
        body = body_of(entry, self._webhook.machine, self._webhook.version)
        return await self.post(body, entry.kind, delivery_name(entry))

    async def send_record(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        if self._form is not None:
            made = self._form.of_record(id, record, self._declared.url)
            return await self._post_all(made, record_delivery(id, record))
        body = body_of_record(id, record, self._webhook.machine, self._webhook.version)
        return await self.post(body, str(record["kind"]), record_delivery(id, record))

    async def _post_all(self, made: Awaitable[Sequence[Posting]], delivery: str) -> Reply:
        """One after another; the first that is not taken ends it, and all come again."""
        try:
            postings = await made
        except WaError:
            raise
        except Exception as error:
            # Not with what it says, which may be a text.
            log.error(
                "webhook %s: an event has no form: %s", self._declared.name, type(error).__name__
            )
            return Reply(Answer.REFUSED, problem="the agent cannot bring it into that form")
        reply = Reply(Answer.TAKEN)
        for number, posting in enumerate(postings):
            name = f"{delivery}-{number}" if number else delivery
            reply = await self.send_posting(posting, name)
            if reply.answer is not Answer.TAKEN:
                break
        return reply

    async def send_posting(self, posting: Posting, delivery: str) -> Reply:
        body = json.dumps(posting.content, separators=(",", ":")).encode()
        return await self.post(body, posting.event, delivery)

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
