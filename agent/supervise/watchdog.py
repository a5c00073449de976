"""The agent's link in the chain of watchdogs: fed by completed passes, never by a timer alone.
sdnotify's socket does not block: a manager that reads nothing must not stop the agent."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import aiohttp
import sdnotify

from agent.clock import boot_now
from agent.host.notify import watchdog_from
from agent.supervise.loop import Loop
from agent.supervise.settings import Settings

log = logging.getLogger(__name__)

LONGEST_PASS = 180.0
"""Seconds: a start or a stop with a long save takes its time, and many may do so at once."""


UNASKED = 30.0
"""The time within which a manager wants a ping, where none says it."""
BEAT_EVERY, BEAT_WITHIN = 60.0, 10.0


class Watchdog:
    def __init__(
        self, loop: Loop, reach_store: Callable[[], Awaitable[object]], settings: Settings
    ) -> None:
        self._loop, self._reach_store, self._settings = loop, reach_store, settings
        self._in_time = False
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def say(self, message: str) -> None:
        self._notifier.notify(message)

    async def run(self) -> None:
        """Ping as long as passes complete in time; log when they do not."""
        interval = (watchdog_from(os.environ, os.getpid()) or UNASKED) / 2
        warned = False
        while True:
            late = await self._what_is_late(interval)
            self._in_time = late is None
            if late is None:
                self.say("WATCHDOG=1")
                warned = False
            elif not warned:
                warned = True
                log.error("the agent sends no watchdog ping: %s", late)
            await asyncio.sleep(interval / 2)

    async def beat(self) -> None:
        """A GET each minute while passes complete in time. Its address is a secret."""
        failed = False
        while True:
            await asyncio.sleep(BEAT_EVERY)
            if not self._in_time or not (url := self._settings.config.heartbeat.url):
                continue
            within = aiohttp.ClientTimeout(total=BEAT_WITHIN)
            try:
                async with (
                    aiohttp.ClientSession(timeout=within) as client,
                    client.get(url) as answer,
                ):
                    cause = "" if answer.ok else f"HTTP {answer.status}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                cause = type(error).__name__
            if cause and not failed:
                log.warning("the address of [heartbeat] url does not take the heartbeat: %s", cause)
            failed = bool(cause)

    async def _what_is_late(self, limit: float) -> str | None:
        """A no-op round through the loop and the database; the part that did not answer, if any."""
        turned = boot_now() - self._loop.turned_at
        if turned > max(limit, 2.0):
            return f"the loop of passes has not turned for {turned:.0f} s"
        behind = self._loop.behind(boot_now())
        if behind > limit:
            return f"passes are {behind:.0f} s behind"
        blocked = self._loop.blocked(boot_now())
        if blocked > max(limit, LONGEST_PASS):
            return f"no pass has ended for {blocked:.0f} s while others wait"
        try:
            async with asyncio.timeout(limit):
                await self._reach_store()
        except TimeoutError:
            return f"the database has not answered for {limit:.0f} s"
        return None
