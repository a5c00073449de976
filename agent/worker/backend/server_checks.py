"""Checks a backend's server in a loop.

A check that hangs stops the watchdog's ping; a server that is down does not.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from agent.core.words import ServerClaim
from agent.engines.base import Backend
from agent.errors import WaError
from agent.host.notify import Notifier

log = logging.getLogger(__name__)

WHILE_UP = 5.0
LONGEST = 60.0
"""Seconds between two checks; while it answers wrongly they grow from the one to the other."""
GROWTH = 1.5
WHILE_AWAY = 3.0
"""From the begin of one check to the next while it cannot be reached: all its sessions wait."""
SOONEST = 0.05
MARGIN = 15.0
"""Seconds that a check may take longer than the requests in it."""
OPENING = 60.0
SAME = 1.0
"""Seconds in which one claim may come by two ways."""
PING_EVERY = 0.4
"""Share of the watchdog's time."""


class ServerChecks:
    def __init__(self, backend: Backend, tell: Callable[[ServerClaim], None], limit: float) -> None:
        """`tell` hears every claim; `limit`: seconds after which a check hangs."""
        self.claim: ServerClaim | None = None
        self._backend = backend
        self._tell = tell
        self._limit = limit
        self._hangs_at = float("inf")
        self._heard_at = 0.0
        self._delay = WHILE_UP
        self._next_at: float | None = None
        """When the next check begins; None while one is under way."""
        self._came_back = asyncio.Event()

    @property
    def hangs(self) -> bool:
        return time.monotonic() > self._hangs_at

    def heard(self, claim: ServerClaim) -> None:
        """From a check of ours, of the agent's, or from the backend by itself."""
        before, self.claim = self.claim, claim
        at, self._heard_at = self._heard_at, time.monotonic()
        if claim is before and self._heard_at - at < SAME:
            return
        if before is None or (before.up, before.reason) != (claim.up, claim.reason):
            level = logging.INFO if claim.up else logging.WARNING
            log.log(level, "%s", self.status_text() + (claim.sentence and f": {claim.sentence}"))
        if claim.up and before is not None and not before.up:
            self._came_back.set()
        self._tell(replace(claim, next_check=self._next_check(claim)))

    def _next_check(self, claim: ServerClaim) -> float:
        if self._next_at is None:
            return self._delay_after(claim)
        return max(self._next_at - time.monotonic(), 0.0)

    def _delay_after(self, claim: ServerClaim | None) -> float:
        """How it is decides how soon it is asked again; a check that failed tells nothing."""
        if claim is None or claim.up:
            return WHILE_UP
        if claim.away:
            return WHILE_AWAY * random.uniform(0.8, 1.0)
        return min(max(self._delay, WHILE_UP) * GROWTH, LONGEST)

    def status_text(self) -> str:
        if self.claim is None:
            return "server not checked yet"
        if self.claim.up:
            return f"server up ({self.claim.version})" if self.claim.version else "server up"
        return f"server down ({self.claim.reason or 'unknown'})"

    async def run(self) -> None:
        """Open the backend and check its server, for ever."""
        await self._open()
        while True:
            self._next_at, begun = None, time.monotonic()
            claim = await self._check()
            self._delay = self._delay_after(claim)
            if claim is not None and claim.away:
                self._delay = max(self._delay - (time.monotonic() - begun), SOONEST)
            self._next_at = time.monotonic() + self._delay
            self._came_back.clear()
            try:
                async with asyncio.timeout(self._delay):
                    await self._came_back.wait()
            except TimeoutError:
                pass
            else:
                self._delay = WHILE_UP

    async def ping(self, notifier: Notifier, watchdog: float | None) -> None:
        """Tell the manager that the worker lives, as long as its backend comes back from checks."""
        if watchdog is None:
            return
        answered = True
        while True:
            before, answered = answered, not self.hangs
            if answered:
                notifier.send("WATCHDOG=1")
            if before != answered:
                log.log(
                    logging.INFO if answered else logging.ERROR,
                    "the backend answers again" if answered else "the backend hangs: no ping",
                )
            await asyncio.sleep(watchdog * PING_EVERY)

    async def _open(self) -> None:
        self._hangs_at = time.monotonic() + OPENING
        try:
            await self._backend.open()
        except WaError as error:
            log.warning("%s", error)

    async def _check(self) -> ServerClaim | None:
        """None when the check itself failed or hung."""
        if not self.hangs:  # what hangs does so until a check comes back
            self._hangs_at = time.monotonic() + self._limit
        limit = asyncio.timeout(self._limit)
        try:
            async with limit:
                claim = await self._backend.check()
        except Exception as error:
            if limit.expired():
                log.error("the check of the server took longer than %g s", self._limit)
                return None
            # The worker's loop is well, and a restart would meet the same server again.
            log.exception("cannot check the server: internal error")
            why = f"the check of the server failed ({type(error).__name__}); see the worker's log"
            claim = ServerClaim(False, "garbage", why)
        self._hangs_at = float("inf")
        self.heard(claim)
        return claim
