"""This machine's part in its fleet: the database, the lease, and where the others are."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent import VERSION
from agent.clock import boot_id
from agent.config import Config
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.engines.baileys.packages import find_packages
from agent.engines.catalog import CATALOG
from agent.engines.web.bundle import read_bundle
from agent.errors import ConfigError
from agent.fleet.coordinator import Machine, MachineRow, Owned
from agent.fleet.directory import Directory
from agent.fleet.keeper import Changed, Keeper
from agent.fleet.key import FleetKey
from agent.fleet.peers import Peers
from agent.fleet.postgres.address import usable_address
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.rehearsal import Rehearsal
from agent.fleet.words import over

MEMORY = "fleet.json"
"""In the state folder."""
CALL_TIMEOUT, LONG_TIMEOUT, COPY_TIMEOUT = 2.0, 10.0, 30.0


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
    coordinator: PostgresCoordinator
    keeper: Keeper
    key: FleetKey
    news: News
    counts: FleetCounts
    requests: PostgresCoordinator
    """For what may take longer: it must not hold up a renewal."""
    copies: PostgresCoordinator
    """For copies of sessions, which are large."""
    peers: Peers
    directory: Directory
    rehearsal: Rehearsal

    def own_row(self) -> MachineRow | None:
        """As the database had it some seconds ago; None before the first answer."""
        return self.directory.machines.get(self.machine)

    @property
    def database_error(self) -> str:
        """A renewal that this machine's own disk held up says nothing about the database."""
        return "" if self.keeper.takeovers.memory.trouble else self.keeper.database_error

    async def close(self) -> None:
        await self.coordinator.close()
        await self.requests.close()
        await self.copies.close()
        await self.peers.close()


async def open_fleet(config: Config) -> Fleet:
    """Reads this machine's memory; asks no other machine yet."""
    section = config.fleet
    address = usable_address(
        section.database,
        password=section.password(),
        application_name=f"wa-agent {section.machine}",
    )
    key = await asyncio.to_thread(FleetKey.read, config.fleet_key)
    coordinator = PostgresCoordinator(address, section.ttl, min(CALL_TIMEOUT, section.ttl / 6))
    requests = PostgresCoordinator(address, section.ttl, LONG_TIMEOUT)
    peers = Peers(key.bearer, section.machine, section.ca)
    news, counts = News(), FleetCounts()
    keeper = Keeper(
        coordinator,
        await asyncio.to_thread(_describe, config, key),
        section.policy,
        path=config.agent.state_path / MEMORY,
        ask_rival=peers.ask_promise,
        changed=news.tell,
        counts=counts,
    )
    await keeper.load()
    keeper.takeovers.ask_word = over(peers)
    coordinator.lapsed = requests.lapsed = keeper.takeovers.lapsed
    return Fleet(
        section.machine,
        section.policy,
        coordinator,
        keeper,
        key,
        news,
        counts,
        requests,
        PostgresCoordinator(address, section.ttl, COPY_TIMEOUT),
        peers,
        Directory(requests, section.machine),
        Rehearsal(keeper, peers.rehearse_promise),
    )


def _describe(config: Config, key: FleetKey) -> Machine:
    section = config.fleet
    return Machine(
        section.machine,
        "",
        place=_place_of(config),
        folder=_folder_of(config),
        address=section.reached_at,
        capacity=section.capacity,
        labels=section.label_values,
        engines=_engines(config),
        version=VERSION,
        key_fingerprint=key.fingerprint,
    )


def _place_of(config: Config) -> str:
    """The boot and the folder: what a copy of this machine does not share with it."""
    place = f"{boot_id()} {config.agent.state_path.absolute()}"
    return hashlib.blake2b(place.encode(), digest_size=16).hexdigest()


def _folder_of(config: Config) -> str:
    """The folder on its disk: a clone of its container has another, under the same path."""
    folder = config.agent.state_path.stat()
    return f"{folder.st_dev}:{folder.st_ino}"


def _engines(config: Config) -> frozenset[str]:
    """Those whose parts are installed; a backend's where a [[backend]] of it is declared."""
    engines = {entry.name for entry in CATALOG.values() if not entry.remote}
    engines |= {backend.engine for backend in config.backend}
    needs: dict[str, Callable[[Path], object]] = {"web": read_bundle, "baileys": find_packages}
    for engine, find in needs.items():
        try:
            find(config.cache_root)
        except ConfigError:
            engines.discard(engine)
    return frozenset(engines)
