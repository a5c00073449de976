"""The tries of one webhook's sessions. While its target takes what it gets they go side by side;
while it fails one tries for all, and the others wait for that one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.wings.webhooks.deliveries import Answer, Result
from agent.wings.webhooks.request import Reply
from agent.wings.webhooks.retry import AgeLimit, TargetStanding, next_wait, wait_for
from agent.wings.webhooks.target import Target
from agent.wings.webhooks.webhook import Webhook

PutAside = Callable[[InstanceId, Mapping[str, Any], str], Awaitable[None]]


class TargetGate:
    def __init__(self, webhook: Webhook, target: Target, put_aside: PutAside) -> None:
        self.standing = TargetStanding(webhook, "messages")
        self._webhook = webhook
        self._target = target
        self._put_aside = put_aside
        self._age = AgeLimit(webhook.declared.longest_age * 3600)
        self._alone = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._next_try = 0.0
        self._failed_tries = 0

    def retry(self) -> None:
        """Try now, whatever failed before."""
        self.standing.retry()
        self.hurry()

    def hurry(self) -> None:
        self._hurry.set()

    async def settle(self, id: InstanceId, record: Mapping[str, Any]) -> None:
        """Return when it is delivered, too old or put aside."""
        refused = 0
        while not self._age.is_over(float(record.get("kept") or time.time())):
            reply = await self._send(id, record)
            if reply.answer is Answer.TAKEN:
                return
            if reply.answer is Answer.LATER or self.standing.refuses_all:
                continue
            refused += 1
            if refused >= self._webhook.declared.tries:
                await self._set_aside(id, record, reply)
                return
            wait = next_wait(refused, reply.wait, self._webhook.pace, self._webhook.jitter())
            await wait_for(self._hurry, wait)
        self._webhook.results[Result.EXPIRED] += 1

    async def try_once(self, id: InstanceId, record: Mapping[str, Any]) -> Answer:
        """As an operator asked."""
        return (await self._try(id, record)).answer

    async def _send(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        while self.standing.patience.failures:
            async with self._alone:
                if not self.standing.patience.failures:
                    break
                await self._pause()
                return await self._try(id, record)
        return await self._try(id, record)

    async def _pause(self) -> None:
        """Until the time of the next try."""
        self.standing.next_try_wall = time.time() + max(self._next_try - boot_now(), 0.0)
        await wait_for(self._hurry, max(self._next_try - boot_now(), 0.0))
        self._hurry.clear()
        self.standing.next_try_wall = None

    async def _try(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        failed_before = self._failed_tries
        self.standing.patience.begin_try()
        reply = await self._target.send_record(id, record)
        if reply.answer is Answer.TAKEN:
            await self.standing.delivered()
        elif reply.answer is Answer.REFUSED and not self.standing.refuses_all:
            self.standing.note(reply)
        elif failed_before == self._failed_tries:  # tries side by side fail as one
            await self._failed(reply)
        return reply

    async def _failed(self, reply: Reply) -> None:
        self._failed_tries += 1
        self._next_try = boot_now() + await self.standing.failed(reply)

    async def _set_aside(self, id: InstanceId, record: Mapping[str, Any], reply: Reply) -> None:
        self.standing.count_dead()
        await self._put_aside(id, record, reply.problem)
        await self.standing.report_dead(f"a message of {id}", reply)
