"""The state of a backend's server, reported when it changes. A failed request proves little, for
one session may hang: the watch asks for one check and reports its result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.core.words import ServerClaim

DOUBT_EVERY = 1.0
"""Seconds between two checks that failed requests ask for."""


@dataclass(slots=True)
class ServerWatch:
    """Holds the newest ServerClaim; `report` gets each that differs from the one before."""

    ask: Callable[[], Awaitable[ServerClaim]]
    """Raises for no fault of the server; any exception goes to `crashed`."""
    report: Callable[[ServerClaim], None]
    crashed: Callable[[BaseException], None]
    claim: ServerClaim | None = None
    """The newest one; None before the first check."""
    _checking: asyncio.Task[ServerClaim] | None = None
    _checked_at: float = float("-inf")
    _later: asyncio.TimerHandle | None = None

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
        if self.claim is not None and not self.claim.up:
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
        claim = await self.ask()
        before, self.claim = self.claim, claim
        if before is None or _state(before) != _state(claim):
            self.report(claim)
        return claim

    def _ended(self, task: "asyncio.Task[ServerClaim]") -> None:
        self._checking = None
        self._checked_at = time.monotonic()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed(error)


def _state(claim: ServerClaim) -> tuple[object, ...]:
    return (claim.up, claim.reason, claim.version)
