"""A value that many callers share: it is asked for once at a time and used for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Recent(Generic[T]):
    """Keeps the last answer. An error goes to all callers that wait, and is not kept."""

    ask: Callable[[], Awaitable[T]]
    holds: float
    """The age in seconds up to which an answer is used again."""
    spacing: float = 0.0
    """Seconds between the beginnings of two requests, whatever `holds` a caller wants."""
    clock: Callable[[], float] = time.monotonic
    _asked_at: float = float("-inf")
    _last: tuple[T, float] | None = None
    _asking: asyncio.Task[T] | None = None

    async def get(self, *, holds: float | None = None) -> T:
        """An answer not older than `holds`. A caller's cancelling does not end the request."""
        if self._last is not None:
            value, at = self._last
            if self.clock() - at < (self.holds if holds is None else holds):
                return value
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew(), name="recent")
            self._asking.add_done_callback(self._ended)
        return await asyncio.shield(self._asking)

    def last(self) -> tuple[T, float] | None:
        """The last answer, however old, and its age."""
        return None if self._last is None else (self._last[0], self.clock() - self._last[1])

    def take(self, value: T) -> None:
        """Keep `value`, which another request has just brought."""
        self._last = (value, self.clock())

    def forget(self) -> None:
        """Drop the answer: we changed something on the server."""
        self._last = None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _renew(self) -> T:
        if (wait := self._asked_at + self.spacing - self.clock()) > 0:
            await asyncio.sleep(wait)
        at = self._asked_at = self.clock()
        value = await self.ask()
        self._last = (value, at)
        return value

    def _ended(self, task: "asyncio.Task[T]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # read here, for no caller may be left to read it
