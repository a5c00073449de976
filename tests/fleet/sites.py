"""Machines of a fleet as far as files go: a folder, a registry, and a place in a real database."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from agent.config import SessionsSection
from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.engines.sandbox.files import SessionFile, read_session, write_session
from agent.fleet.coordinator import Machine, Member, NewSession, Owned
from agent.fleet.key import FleetKey
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.store.database import Store
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.fleet.arrivals import Arrivals
from agent.supervise.fleet.epochs import Epochs
from agent.supervise.fleet.stored.replicas import Replicas
from agent.supervise.fleet.stored.writing import CopyWriting
from agent.supervise.registry import Registry
from agent.vault.identity import create
from tests.supervise.test_show import SOURCES

KEY = FleetKey(bytes(range(32)))
SHOP = InstanceId("shop")
LAG = 0.4


class Site:
    """One machine: its folder, its registry, and its part in the fleet."""

    def __init__(self, root: Path, store: Store, coordinator: PostgresCoordinator) -> None:
        self.root, self.store, self.coordinator = root, store, coordinator
        self.registry = Registry(store, SOURCES, root)
        self.keeping = Snapshots(
            self.registry,
            store,
            None,  # type: ignore[arg-type]
            root,
            SessionsSection,
            lambda: 5.0,
            lambda _id: None,
        )
        self.member = Member(0, 0, 0)
        self.owned: dict[str, Owned] = {}
        writing = CopyWriting(
            coordinator, KEY, lambda: self.member, lambda: self.owned, Epochs(store)
        )
        self.replicas = Replicas(writing, self.registry, root, LAG, lambda: self.owned)
        self.arrivals = Arrivals(coordinator, KEY, root)

    async def join(self, name: str) -> None:
        machine = Machine(name, str(uuid.uuid4()), engines=frozenset({"sandbox", "web"}))
        self.member = await self.coordinator.join(machine)
        await self.renew()

    async def renew(self) -> None:
        answer = await self.coordinator.renew(self.member, frozenset(), 0)
        self.member = replace(self.member, renewals=answer.renewals[self.member.id])
        self.owned = {each.id: each for each in await self.coordinator.owned(self.member)}

    async def add(self, id: str = SHOP, engine: str = "sandbox", *, paired: bool = True) -> Facts:
        """A session of this machine, paired and stopped."""
        assert await self.coordinator.create(self.member, NewSession(id, engine), self.member.id)
        await self.renew()
        instance = Instance(InstanceId(id), engine, True, leased=True)
        create(self.root, instance)
        record = SessionRecord(paired=paired, account="49151" if paired else "")
        await self.store.add(instance, record, JournalEntry("created", "made"))
        facts = self.registry.add(instance, record)
        if paired and engine == "sandbox":
            self.write(id, 0)
        return facts

    def write(self, id: str, counter: int) -> None:
        write_session(self.root / id / "session", SessionFile(True, "49151", "phone", counter))

    def read(self, id: str = SHOP) -> SessionFile:
        found = read_session(self.root / id / "session")
        assert found is not None
        return found

    async def hand_over(self, to: "Site", id: str = SHOP) -> Owned:
        await self.renew()
        assert await self.coordinator.hand_over(self.member, id, to.member.id, "a test")
        await to.renew()
        return to.owned[id]

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.replicas.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []
