"""Which machine owns which session: a copy of the database's rows, so that no request waits for it.

It may be old by some seconds. A machine asked by mistake refuses, and the copy is read again.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from agent.clock import boot_now
from agent.errors import WaError
from agent.fleet.coordinator import MachineRow, SessionRow
from agent.fleet.postgres.coordinator import PostgresCoordinator

log = logging.getLogger(__name__)

EVERY = 5.0
_PATIENCE = 3.0
"""Seconds that a request waits for the database."""
_AT_MOST = 1.0
"""Seconds between two readings that unknown ids cause."""


class Directory:
    def __init__(self, coordinator: PostgresCoordinator, machine: str) -> None:
        self._coordinator = coordinator
        self.machine = machine
        """The name of this one."""
        self.machines: Mapping[str, MachineRow] = {}
        """By name, the whole fleet."""
        self.sessions: dict[str, SessionRow] = {}
        self._by_id: Mapping[int, MachineRow] = {}
        self._generation = -1
        self._read_at = -EVERY
        self._answered_at = boot_now()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def known(self) -> bool:
        """It was read since the agent began."""
        return self._generation >= 0

    def owner(self, id: str) -> MachineRow | None:
        """The machine that owns a session; None for an id that no machine owns."""
        session = self.sessions.get(id)
        return None if session is None else self._by_id.get(session.machine)

    def owner_name(self, id: str) -> str:
        """ "" = no machine owns it."""
        row = self.owner(id)
        return "" if row is None else row.name

    @property
    def age(self) -> float:
        """Seconds since the database was read."""
        return boot_now() - self._answered_at

    def renewed_seconds_ago(self, row: MachineRow) -> float | None:
        """By now, of a row that was read then; None: it never renewed."""
        seen = row.seconds_since_renewal
        return None if seen is None else seen + self.age

    def name_of(self, machine: int) -> str:
        row = self._by_id.get(machine)
        return "" if row is None else row.name

    @property
    def others(self) -> Sequence[MachineRow]:
        return [row for name, row in self.machines.items() if name != self.machine]

    async def look_again(self) -> None:
        """For an id that is unknown, or whose owner refused: the rows may be old."""
        if boot_now() - self._read_at >= _AT_MOST or not self.known:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.read()
            except (WaError, TimeoutError) as error:
                log.debug("cannot read the owners of sessions: %s", error)

    async def read(self) -> None:
        async with self._turn:
            self._read_at = boot_now()
            machines = await self._coordinator.machines()
            changes = await self._coordinator.directory(self._generation)
            self.machines = {row.name: row for row in machines}
            self._by_id = {row.id: row for row in machines}
            self._answered_at = boot_now()
            if changes.whole:
                self.sessions.clear()
            for id in changes.deleted:
                self.sessions.pop(id, None)
            self.sessions.update((row.id, row) for row in changes.sessions)
            self._generation = changes.generation

    def wake(self) -> None:
        """The database says that an owner changed."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.read()
            except WaError as error:
                log.debug("cannot read the owners of sessions: %s", error)
            try:
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            except TimeoutError:
                pass
