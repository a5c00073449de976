"""Finds what no webhook brought: compares with the server's own store. A webhook is lost where the
agent was away for longer than the server tries (1.8 tries once), and where the server was killed
between its store and its webhook."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.engines.base import Keeper
from agent.engines.evolution.chat.records import stored_records
from agent.engines.evolution.chat.stored import Stored
from agent.engines.evolution.remembered_file import RememberedFile
from agent.errors import EngineError

log = logging.getLogger(__name__)

LATE = 900.0
"""Seconds by which a row may be older than the moment at which it was stored, and by which the two
clocks may differ."""
LONGEST = 72 * 3600.0
"""Seconds: what is older was read, or is let go here, by the settings as they are shipped."""
_AT_ONCE = 100
_AT_ONE_TIME = 2


@dataclass(slots=True)
class Turns:
    """Of all sessions of a server: its store is asked a few times at once."""

    marks: RememberedFile[float]
    running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONE_TIME))


@dataclass(slots=True)
class Comparing:
    """Of one session. `look` is called again and again, and begins a comparison when one is due."""

    stored: Stored
    turns: Turns
    keeper: Callable[[], Keeper]
    again: Callable[[], float]
    """Seconds to the next one."""
    crashed: Callable[[BaseException], None]
    found: Callable[[Sequence[Mapping[str, Any]]], None]
    """Hears of what the store has, again and again."""
    _due: float = 0.0
    _then: float = 0.0
    """When it is due once more."""
    _steady: bool = False
    """The session was connected all the time since the last comparison began: what WhatsApp gave it
    since then is newer than that."""
    _task: asyncio.Task[None] | None = None

    def soon(self, after: float = 0.0) -> None:
        """Something may have been missed."""
        self._due = min(self._due, time.monotonic() + after)

    def settle(self, after: float) -> None:
        """The session has just opened: once more after so many seconds."""
        self._then = time.monotonic() + after

    def unsteady(self) -> None:
        """The session is not connected: WhatsApp holds its messages, and gives them later."""
        self._steady = False

    def look(self, *, connected: bool) -> None:
        if not connected:
            self._steady = False
        runs = self._task is not None and not self._task.done()
        if runs or time.monotonic() < self._due or not self.keeper().keeps:
            return
        now = time.monotonic()
        self._due = min(now + self.again(), self._then) if self._then > now else now + self.again()
        self._task = asyncio.create_task(self._compare(connected), name="compare messages")
        self._task.add_done_callback(self._ended)

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _compare(self, connected: bool) -> None:
        marks, name, begun = self.turns.marks, self.stored.name, time.time()
        since = marks.get(name)
        if since is None:
            # It is new here: what it had before is its server's.
            marks.put(name, begun)
            self._steady = connected
            return
        was_steady, self._steady = self._steady, connected
        async with self.turns.running:
            try:
                count = await self._keep(max(since - LATE, begun - LONGEST))
            except EngineError as error:
                self._steady = False
                self.soon(self.again() / 10)
                log.info("cannot compare the messages of %s: %s", name, error)
                return
        log.debug("compared %d messages of %s with its server's", count, name)
        if was_steady and self._steady:
            marks.put(name, begun)

    async def _keep(self, since: float) -> int:
        """Oldest first; what was kept before is dropped by its id."""
        rows: list[Any] = [row async for row in self.stored.rows(since)]
        rows.reverse()
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            if records := [record for row in part for record in stored_records(row)]:
                await self.keeper().keep(records)
                self.found(records)
        return len(rows)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed(error)
