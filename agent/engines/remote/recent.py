"""A value that many callers share: it is asked for once at a time and used for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the last answer. An error goes to all callers that wait, and is not kept."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        holds: float,
        spacing: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holds`: the age in seconds up to which an answer is used again; `spacing`: the seconds
        between the beginnings of two requests, whatever `holds` a caller wants."""
        self._ask = ask
        self._holds = holds
        self._spacing = spacing
        self._asked_at = float("-inf")
        self._clock = clock
        self._kept: tuple[T, float] | None = None
        self._asking: asyncio.Task[T] | None = None

    async def get(self, *, holds: float | None = None) -> T:
        """An answer not older than `holds`. A caller's cancelling does not end the request."""
        if (kept := self._kept) is not None:
            value, at = kept
            if self._clock() - at < (self._holds if holds is None else holds):
                return value
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew(), name="recent")
            self._asking.add_done_callback(self._ended)
        return await asyncio.shield(self._asking)

    def last(self) -> tuple[T, float] | None:
        """The last answer, however old, and its age."""
        return None if self._kept is None else (self._kept[0], self._clock() - self._kept[1])

    def take(self, value: T) -> None:
        """Keep `value`, which another request has just brought."""
        self._kept = (value, self._clock())

    def forget(self) -> None:
        """Drop the answer: we changed something on the server."""
        self._kept = None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _renew(self) -> T:
        if (wait := self._asked_at + self._spacing - self._clock()) > 0:
            await asyncio.sleep(wait)
        at = self._asked_at = self._clock()
        value = await self._ask()
        self._kept = (value, at)
        return value

    def _ended(self, task: "asyncio.Task[T]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # read here, for no caller may be left to read it
