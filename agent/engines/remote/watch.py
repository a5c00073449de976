"""The state of a backend's server, told when it changes.

A failed request says little of the server: one session may hang. So the watch asks
for one check and reports what the check found.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from agent.core.words import ServerClaim

DOUBT_EVERY = 1.0
"""Seconds between two checks that failed requests ask for."""


class ServerWatch:
    """Holds the newest ServerClaim; `tell` gets each that differs from the one before."""

    def __init__(
        self,
        check: Callable[[], Awaitable[ServerClaim]],
        tell: Callable[[ServerClaim], None],
        crashed: Callable[[BaseException], None],
    ) -> None:
        """`check` raises for no fault of the server; any exception goes to `crashed`."""
        self._check = check
        self._tell = tell
        self._crashed = crashed
        self._claim: ServerClaim | None = None
        self._checking: asyncio.Task[ServerClaim] | None = None
        self._checked_at = float("-inf")
        self._later: asyncio.TimerHandle | None = None

    @property
    def claim(self) -> ServerClaim | None:
        """The newest one; None before the first check."""
        return self._claim

    async def check(self) -> ServerClaim:
        """Ask now; callers at the same time share one check."""
        self._begin()
        assert self._checking is not None
        return await asyncio.shield(self._checking)

    def doubt(self) -> None:
        """Ask for a check: a request failed, or succeeded while the server is said to be down."""
        if self._checking is None and self._later is None:
            wait = max(0.0, self._checked_at + DOUBT_EVERY - time.monotonic())
            self._later = asyncio.get_running_loop().call_later(wait, self._begin)

    def answered(self) -> None:
        """A request succeeded; where the server is said to be down a check follows."""
        if self._claim is not None and not self._claim.up:
            self.doubt()

    async def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})

    def _begin(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._checking is not None:
            return
        self._checking = asyncio.create_task(self._run(), name="server-check")
        self._checking.add_done_callback(self._ended)

    async def _run(self) -> ServerClaim:
        claim = await self._check()
        before, self._claim = self._claim, claim
        if before is None or _news(before) != _news(claim):
            self._tell(claim)
        return claim

    def _ended(self, task: "asyncio.Task[ServerClaim]") -> None:
        self._checking = None
        self._checked_at = time.monotonic()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)


def _news(claim: ServerClaim) -> tuple[object, ...]:
    return (claim.up, claim.reason, claim.version)
