"""The agent's link in the chain of watchdogs: fed by completed passes, never by a timer alone.
sdnotify's socket does not block: a manager that reads nothing must not stop the agent."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import sdnotify

from agent.clock import boot_now
from agent.supervise.loop import Loop

log = logging.getLogger(__name__)

LONGEST_PASS = 180.0
"""Seconds: a start or a stop with a long save takes its time, and many may do so at once."""


class Watchdog:
    def __init__(self, loop: Loop, reach_store: Callable[[], Awaitable[object]]) -> None:
        self._loop = loop
        self._reach_store = reach_store
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def say(self, message: str) -> None:
        self._notifier.notify(message)

    async def run(self) -> None:
        """Ping as long as passes complete in time; log when they do not."""
        interval = watchdog_seconds() / 2
        warned = False
        while True:
            late = await self._what_is_late(interval)
            if late is None:
                self.say("WATCHDOG=1")
                warned = False
            elif not warned:
                warned = True
                log.error("the agent sends no watchdog ping: %s", late)
            await asyncio.sleep(interval / 2)

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


def watchdog_seconds() -> float:
    """The time within which the manager wants a ping; 30 s where none is set."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 30.0
    try:
        return int(os.environ.get("WATCHDOG_USEC", "30000000")) / 1e6
    except ValueError:
        return 30.0
