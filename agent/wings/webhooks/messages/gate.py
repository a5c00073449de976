"""The tries of one webhook's sessions. While its target takes what it gets they go side by side;
while it fails one tries for all, and the others wait for that one."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.clock import boot_now
from agent.core.breaker import BreakerState
from agent.core.model import InstanceId
from agent.wings.webhooks.courier import MOST_IN_A_ROW
from agent.wings.webhooks.deliveries import Answer, Pace, Result, next_wait
from agent.wings.webhooks.request import Reply
from agent.wings.webhooks.retry import AgeLimit, RetryPatience, wait_for
from agent.wings.webhooks.settings import WebhookDeclaration
from agent.wings.webhooks.target import Target

log = logging.getLogger(__name__)

PutAside = Callable[[InstanceId, Mapping[str, Any], str], Awaitable[None]]
Report = Callable[[str, str, bool], Awaitable[None]]
"""Writes an event: its kind, its sentence, whether it is bad."""


class TargetGate:
    def __init__(
        self,
        declared: WebhookDeclaration,
        target: Target,
        *,
        results: Counter[Result],
        pace: Pace,
        jitter: Callable[[], float],
        put_aside: PutAside,
        report: Report,
    ) -> None:
        self.problem = ""
        """Why the last try failed; "" when it did not."""
        self.next_try_wall: float | None = None
        self.delivered_wall: float | None = None
        self._declared = declared
        self._target = target
        self._results = results
        self._pace = pace
        self._jitter = jitter
        self._put_aside = put_aside
        self._report = report
        self._patience = RetryPatience(pace, jitter)
        self._age = AgeLimit(declared.longest_age * 3600)
        self._alone = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._next_try = 0.0
        self._in_a_row = 0
        self._failed_tries = 0
        self._reported_failing = self._reported_dead = False

    @property
    def failing(self) -> bool:
        return bool(self._patience.failures)

    @property
    def circuit(self) -> BreakerState:
        return self._patience.circuit

    def retry(self) -> None:
        """Try now, whatever failed before."""
        self._patience.end()
        self._in_a_row = 0
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
            if reply.answer is Answer.LATER or self._in_a_row >= MOST_IN_A_ROW:
                continue
            refused += 1
            if refused >= self._declared.tries:
                await self._set_aside(id, record, reply)
                return
            wait = next_wait(refused, reply.wait, self._pace, self._jitter())
            await wait_for(self._hurry, wait)
        self._results[Result.EXPIRED] += 1

    async def try_once(self, id: InstanceId, record: Mapping[str, Any]) -> Answer:
        """As an operator asked."""
        return (await self._try(id, record)).answer

    async def _send(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        while self._patience.failures:
            async with self._alone:
                if not self._patience.failures:
                    break
                await self._pause()
                return await self._try(id, record)
        return await self._try(id, record)

    async def _pause(self) -> None:
        """Until the time of the next try."""
        self.next_try_wall = time.time() + max(self._next_try - boot_now(), 0.0)
        await wait_for(self._hurry, max(self._next_try - boot_now(), 0.0))
        self._hurry.clear()
        self.next_try_wall = None

    async def _try(self, id: InstanceId, record: Mapping[str, Any]) -> Reply:
        failed_before = self._failed_tries
        self._patience.begin_try()
        reply = await self._target.send_record(id, record)
        if reply.answer is Answer.TAKEN:
            await self._delivered()
        elif reply.answer is Answer.REFUSED and self._in_a_row < MOST_IN_A_ROW:
            self._note(reply)
        elif failed_before == self._failed_tries:  # tries side by side fail as one
            await self._failed(reply)
        return reply

    async def _delivered(self) -> None:
        self.delivered_wall = time.time()
        self._patience.end()
        self._in_a_row, self._reported_dead = 0, False
        if self.problem:
            log.info("webhook %s takes messages again", self._declared.name)
        self.problem = ""
        if self._reported_failing:
            self._reported_failing = False
            await self._report("webhook_back", "deliveries of messages work again", False)

    def _note(self, reply: Reply) -> None:
        if not self.problem:
            said = "webhook %s: %s; the agent tries again"
            log.warning(said, self._declared.name, reply.problem)
        self.problem = reply.problem

    async def _failed(self, reply: Reply) -> None:
        self._note(reply)
        self._failed_tries += 1
        self._next_try = boot_now() + self._patience.after_failure(reply.wait, at_fault=True)
        if self._patience.gone and not self._reported_failing:
            self._reported_failing = True
            sentence = f"deliveries of messages fail: {reply.problem}"
            await self._report("webhook_failing", sentence, True)

    async def _set_aside(self, id: InstanceId, record: Mapping[str, Any], reply: Reply) -> None:
        self._results[Result.DEAD] += 1
        self._in_a_row += 1
        await self._put_aside(id, record, reply.problem)
        if not self._reported_dead:
            self._reported_dead = True
            sentence = f"it refused a message of {id}, which was put aside: {reply.problem}"
            await self._report("webhook_dead", sentence, True)
