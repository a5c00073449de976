"""The views that the machines published last, in memory for a second: one reading for all lists."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.api.present import with_wait
from agent.clock import boot_now
from agent.errors import WaError
from agent.fleet.coordinator import MachineRow
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.waiting import ViewRow

_DETAILS = ("settings", "created")
"""Beside what a list shows."""
FRESH = 1.0
"""Machines publish at most once in so many seconds."""
_PATIENCE, _PAUSE = 4.0, 10.0
"""Seconds that a list waits for the database, and in which it does not ask again."""


@dataclass(slots=True)
class PublishedViews:
    coordinator: PostgresCoordinator
    rows: Mapping[str, ViewRow] | None = None
    """The last that were read."""
    _read_at: float = 0.0
    _again: float = 0.0
    """When the database is asked again, after it did not answer."""
    _turn: asyncio.Lock | None = None

    async def all(self) -> Mapping[str, ViewRow]:
        """Those that were read last while the database is away; nothing if none were."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            now = boot_now()
            if now >= self._again and (self.rows is None or now - self._read_at >= FRESH):
                try:
                    async with asyncio.timeout(_PATIENCE):
                        rows = await self.coordinator.views()
                except (WaError, TimeoutError):
                    self._again = boot_now() + _PAUSE
                    return self.rows or {}
                self.rows = {row.id: row for row in rows}
                self._read_at = boot_now()
            return self.rows or {}

    async def get(self, id: str) -> ViewRow | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                rows = await self.coordinator.views(ids=[id])
        except (WaError, TimeoutError):
            row, since = (self.rows or {}).get(id), boot_now() - self._read_at
            return row and replace(row, age_seconds=row.age_seconds + since)
        return next(iter(rows), None)

    def listed(self, row: ViewRow, owner: MachineRow | None) -> dict[str, Any]:
        """An entry of the list. A machine that renews publishes each change within a second."""
        since_read = max(boot_now() - self._read_at, 0.0)
        same = owner is not None and owner.id == row.machine
        renewed = owner.seconds_since_renewal if owner is not None and same else None
        age = row.age_seconds if renewed is None else min(row.age_seconds, renewed)
        shown = {name: value for name, value in with_wait(row.view).items() if name not in _DETAILS}
        if shown.get("uptime_seconds") is not None:
            shown["uptime_seconds"] += round(row.age_seconds + since_read)
        machine = "" if owner is None else owner.name
        return {**shown, "machine": machine, "as_of_seconds": round(age + since_read, 3)}
