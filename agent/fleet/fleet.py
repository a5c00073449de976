"""This machine's part in its fleet: the database, the lease, and where the others are."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import make_conninfo

from agent import VERSION
from agent.config import Config
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.engines.catalog import CATALOG
from agent.fleet.coordinator import Coordinator, Machine, MachineRow, Owned
from agent.fleet.keeper import Changed, Keeper
from agent.fleet.key import FleetKey
from agent.fleet.postgres.coordinator import open_coordinator

MEMORY = "fleet.json"
"""In the state folder."""
CALL_TIMEOUT, LONG_TIMEOUT = 2.0, 30.0


@dataclass(slots=True)
class News:
    """Passes on what this machine may run; supervision, which is built later, listens."""

    listeners: list[Changed] = field(default_factory=list)

    def tell(self, owned: Sequence[Owned], lease: Lease) -> None:
        for listener in self.listeners:
            listener(owned, lease)


@dataclass(frozen=True, slots=True)
class Fleet:
    machine: str
    """This machine's name."""
    policy: LeasePolicy
    coordinator: Coordinator
    keeper: Keeper
    key: FleetKey
    news: News
    counts: FleetCounts
    requests: Coordinator
    """For requests and copies: what takes longer must not hold up a renewal."""
    memory: Path
    """The file of the keeper."""

    def own_row(self) -> MachineRow | None:
        """As the database had it some seconds ago; None before the first answer."""
        rows = self.keeper.rows.values()
        return next((row for row in rows if row.name == self.machine), None)

    async def close(self) -> None:
        await self.coordinator.close()
        await self.requests.close()


async def open_fleet(config: Config) -> Fleet:
    """Reads this machine's memory; asks nobody yet."""
    section = config.fleet
    address = make_conninfo(section.database, application_name=f"wa-agent {section.machine}")
    if password := section.password():
        address = make_conninfo(address, password=password)
    coordinator = open_coordinator(address, section.ttl, min(CALL_TIMEOUT, section.ttl / 6))
    memory = config.agent.state_path / MEMORY
    key = await asyncio.to_thread(FleetKey.read, config.fleet_key)
    news, counts = News(), FleetCounts()
    keeper = Keeper(
        coordinator,
        _describe(config),
        section.policy,
        path=memory,
        ask_rival=_promise_nothing,
        changed=news.tell,
        counts=counts,
    )
    await keeper.load()
    return Fleet(
        section.machine,
        section.policy,
        coordinator,
        keeper,
        key,
        news,
        counts,
        open_coordinator(address, section.ttl, LONG_TIMEOUT),
        memory,
    )


def _describe(config: Config) -> Machine:
    section = config.fleet
    return Machine(
        section.machine,
        "",
        address=section.reached_at,
        capacity=section.capacity,
        labels=section.label_values,
        engines=frozenset(CATALOG),
        version=VERSION,
    )


async def _promise_nothing(_rival: MachineRow, _id: int, _epoch: int) -> bool:
    return False
