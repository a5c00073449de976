"""The target of one webhook: its connection, opened when needed, and the count of tries."""

from collections import Counter

from agent.core.model import JournalEntry
from agent.errors import ConfigError
from agent.wings.webhooks.deliveries import Answer, Result, body_of, delivery_name
from agent.wings.webhooks.request import Reply, RequestLine
from agent.wings.webhooks.settings import WebhookDeclaration


class Target:
    def __init__(
        self, declared: WebhookDeclaration, results: Counter[Result], *, machine: str, version: str
    ) -> None:
        self._declared = declared
        self._results = results
        self._machine = machine
        self._version = version
        self._line: RequestLine | None = None
        self._stale = False

    def reopen(self) -> None:
        """Read its secret and its certificates again before the next try."""
        self._stale = True

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()
            self._line = None

    async def send(self, entry: JournalEntry) -> Reply:
        try:
            if self._stale:
                await self.close()
            self._stale = False
            if self._line is None:
                self._line = await RequestLine.open(self._declared, self._version)
        except ConfigError as error:
            # Unsigned would be worse than late: the receiver could not tell it from a forgery.
            reply = Reply(Answer.LATER, problem=str(error))
        else:
            body = body_of(entry, self._machine, self._version)
            reply = await self._line.post(body, entry.kind, delivery_name(entry))
        taken = reply.answer is Answer.TAKEN
        self._results[Result.DELIVERED if taken else Result.FAILED] += 1
        return reply
