"""The views that the machines published last, in memory for a second: one reading for all lists."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import boot_now
from agent.errors import WaError
from agent.fleet.coordinator import Coordinator, MachineRow, ViewRow

FRESH = 1.0
"""Machines publish at most once in so many seconds."""


@dataclass(slots=True)
class PublishedViews:
    coordinator: Coordinator
    rows: Mapping[str, ViewRow] | None = None
    """The last that were read."""
    _read_at: float = 0.0
    _turn: asyncio.Lock | None = None

    async def all(self) -> Mapping[str, ViewRow]:
        """Those that were read last while the database is away; nothing if none were."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            if self.rows is None or boot_now() - self._read_at >= FRESH:
                try:
                    rows = await self.coordinator.views()
                except WaError:
                    return self.rows or {}
                self.rows = {row.id: row for row in rows}
                self._read_at = boot_now()
            return self.rows

    async def get(self, id: str) -> ViewRow | None:
        try:
            found = await self.coordinator.views(ids=[id])
        except WaError:
            return (self.rows or {}).get(id)
        return next(iter(found), None)

    def as_of(self, row: ViewRow, owner: MachineRow | None) -> float:
        """How old the view is: a machine that renews publishes each change within a second."""
        since_read = max(boot_now() - self._read_at, 0.0)
        same = owner is not None and owner.id == row.machine
        renewed = owner.seconds_since_renewal if owner is not None and same else None
        age = row.age_seconds if renewed is None else min(row.age_seconds, renewed)
        return round(age + since_read, 3)


def shown_as_of(view: Mapping[str, Any], machine: str, age: float) -> dict[str, Any]:
    """A published view as an answer: an uptime went on, where it did at its reading."""
    uptime = view.get("uptime_seconds")
    grown = {} if uptime is None else {"uptime_seconds": uptime + round(age)}
    return {**view, **grown, "machine": machine, "as_of_seconds": age}
