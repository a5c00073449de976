"""systemd jobs: begin one, wait for its end, never have many unfinished.

Thousands of queued jobs throw PID 1 itself off the bus (it adds a match rule for each), so a window
bounds them; a job counts until JobRemoved says how it ended.
"""

import asyncio
from collections.abc import Awaitable, Callable

from agent.host.systemd.bus import BusCallFailed, BusGone

WINDOW = 20
# Starts may hang for their whole time limit; stops must still get through.
STARTS = 16

UNKNOWN = "unknown"
"""The result of a job that ended while the bus was away."""

Begin = Callable[[], Awaitable[str]]
"""Asks systemd for a job; returns the job's object path."""


class Jobs:
    def __init__(self, still_exists: Callable[[str], Awaitable[bool]]) -> None:
        self._still_exists = still_exists
        self._window = asyncio.Semaphore(WINDOW)
        self._starts = asyncio.Semaphore(STARTS)
        self._waiting: dict[str, asyncio.Future[str]] = {}
        # A job may end before the answer that names it is looked at.
        self._beginning = 0
        self._early: dict[str, str] = {}

    @property
    def pending(self) -> int:
        return len(self._waiting) + self._beginning

    def removed(self, path: str, result: str) -> None:
        waiting = self._waiting.get(path)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)
        elif self._beginning:
            self._early[path] = result

    def bus_lost(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BusGone("the system bus went away"))

    async def run(self, begin: Begin, *, start: bool, timeout: float) -> str:
        """How systemd says that the job ended (done, failed, ...); TimeoutError if it does not."""
        if start:
            async with self._starts, self._window:
                return await self._run(begin, timeout)
        async with self._window:
            return await self._run(begin, timeout)

    async def _run(self, begin: Begin, timeout: float) -> str:
        path = await self._begin(begin)
        try:
            async with asyncio.timeout(timeout):
                return await self._wait(path)
        finally:
            self._waiting.pop(path, None)

    async def _begin(self, begin: Begin) -> str:
        self._beginning += 1
        try:
            path = await _to_end(begin())
            self._waiting[path] = asyncio.get_running_loop().create_future()
            if path in self._early:
                self._waiting[path].set_result(self._early[path])
            return path
        finally:
            self._beginning -= 1
            if not self._beginning:
                self._early.clear()

    async def _wait(self, path: str) -> str:
        while True:
            try:
                return await self._waiting[path]
            except BusGone:
                self._waiting[path] = asyncio.get_running_loop().create_future()
            # The signal may have come while the bus was away: look whether the job is still there.
            try:
                if not await self._still_exists(path):
                    return UNKNOWN
            except BusCallFailed:
                return UNKNOWN
            except BusGone:
                self._fail_again(path)

    def _fail_again(self, path: str) -> None:
        waiting = self._waiting[path]
        if not waiting.done():
            waiting.set_exception(BusGone("the system bus went away"))


async def _to_end(asking: Awaitable[str]) -> str:
    """A cancelled caller waits as well: then the job is queued, and a stop of all units that
    follows finds it. A start unknown to the agent would run without it."""
    asked = asyncio.ensure_future(asking)
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        await asyncio.wait({asked})
        raise
