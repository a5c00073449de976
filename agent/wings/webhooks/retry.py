"""When a webhook is tried again, which entries are too old to be sent, and what the history is told
of a target that fails."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.clock import boot_now
from agent.core.breaker import Breaker, BreakerState
from agent.core.reconnect import ReconnectPolicy, reconnect_delay
from agent.wings.webhooks.deliveries import Pace, Result
from agent.wings.webhooks.webhook import Webhook

if TYPE_CHECKING:
    from agent.wings.webhooks.request import Reply

log = logging.getLogger(__name__)

_DOUBLING = ReconnectPolicy(factor=2.0, jitter=0.0)

CLOCK_JUMP = 3600.0
"""Seconds that the wall clock may gain on the boot clock; beyond them it was set."""
MOST_IN_A_ROW = 10
"""Entries put aside without a delivery between them. A target that refuses more than that refuses
everything: then the entries wait as for a target that is down."""


def next_wait(failures: int, asked_wait: float, pace: Pace, jitter01: float) -> float:
    """Seconds to the next try: full jitter over the failures in a row, at least `asked_wait`."""
    longest = reconnect_delay(failures - 1, _DOUBLING, pace.first, pace.longest, 0.0)
    return max(longest * jitter01, asked_wait)


class RetryPatience:
    """Failures in a row, and the circuit that they open."""

    def __init__(self, pace: Pace, jitter: Callable[[], float]) -> None:
        self.failures = 0
        self._pace = pace
        self._jitter = jitter
        self._breaker = Breaker()

    @property
    def circuit(self) -> BreakerState:
        return self._breaker.state(boot_now(), self._pace.circuit)

    @property
    def gone(self) -> bool:
        """Whether so many tries failed that the circuit opened."""
        return self._breaker.opened_at is not None

    def begin_try(self) -> None:
        self._breaker = self._breaker.after_try(boot_now(), self._pace.circuit)

    def end(self) -> None:
        """After a delivery, or when an operator asked for a try now."""
        self._breaker, self.failures = Breaker(), 0

    def next_entry(self) -> None:
        """After a failure of the entry, not of the target: the next entry is tried at once."""
        self.failures = 0

    def after_failure(self, asked_wait: float, *, at_fault: bool) -> float:
        """Seconds to the next try; `asked_wait`: seconds that the target asked for."""
        now = boot_now()
        self.failures += 1
        if at_fault:
            self._breaker = self._breaker.after_failure(now, self._pace.circuit)
        wait = next_wait(self.failures, asked_wait, self._pace, self._jitter())
        return max(wait, self._breaker.opens_in(now, self._pace.circuit))


class AgeLimit:
    """Whether an entry is too old, by the clock at the start of its webhook."""

    def __init__(self, seconds: float, *, wall: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._wall = wall
        self._apart = wall() - boot_now()

    def is_over(self, wall: float) -> bool:
        now_wall = self._wall()
        if now_wall - boot_now() - self._apart > CLOCK_JUMP:
            return False  # the clock was set: ages by it are wrong
        return now_wall - wall > self._seconds


class TargetStanding:
    """Whether a webhook's target takes what it gets: events, or messages."""

    def __init__(self, webhook: Webhook, what: str) -> None:
        self.problem = ""
        """Why the last try failed; "" when it did not."""
        self.next_try_wall: float | None = None
        self.delivered_wall: float | None = None
        self.patience = RetryPatience(webhook.pace, webhook.jitter)
        self._webhook = webhook
        self._what = what
        self._of = "" if what == "events" else f" of {what}"
        self._in_a_row = 0
        self._reported_failing = self._reported_dead = False

    @property
    def refuses_all(self) -> bool:
        return self._in_a_row >= MOST_IN_A_ROW

    def retry(self) -> None:
        """Try now, whatever failed before."""
        self.patience.end()
        self._in_a_row = 0

    async def delivered(self, more: str = "") -> None:
        self.delivered_wall = time.time()
        self.retry()
        self._reported_dead = False
        if self.problem:
            log.info("webhook %s takes %s again", self._webhook.name, self._what)
        self.problem = ""
        if self._reported_failing:
            self._reported_failing = False
            await self._webhook.report("webhook_back", f"deliveries{self._of} work again{more}")

    def note(self, reply: "Reply") -> None:
        if not self.problem:
            said = "webhook %s: %s; the agent tries again"
            log.warning(said, self._webhook.name, reply.problem)
        self.problem = reply.problem

    async def failed(self, reply: "Reply", *, at_fault: bool = True) -> float:
        """Seconds to the next try. `at_fault`: the failure is the target's, not the entry's."""
        self.note(reply)
        wait = self.patience.after_failure(reply.wait, at_fault=at_fault)
        if self.patience.gone and not self._reported_failing:
            self._reported_failing = True
            sentence = f"deliveries{self._of} fail: {reply.problem}"
            await self._webhook.report("webhook_failing", sentence, bad=True)
        return wait

    def count_dead(self) -> None:
        """One more is put aside."""
        self._webhook.results[Result.DEAD] += 1
        self._in_a_row += 1

    async def report_dead(self, what: str, reply: "Reply") -> None:
        """Once until the next delivery."""
        if not self._reported_dead:
            self._reported_dead = True
            sentence = f"it refused {what}, which was put aside: {reply.problem}"
            await self._webhook.report("webhook_dead", sentence, bad=True)


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
