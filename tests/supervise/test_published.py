"""What outlives the agent is shown once it is on the disk: a kill takes nothing back."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.config.config import Config
from agent.core.model import Instance, InstanceId, JournalEntry, SessionRecord
from agent.errors import StoreError
from agent.store.database import Store
from agent.supervise.facts import Settings
from agent.supervise.registry import Registry
from agent.vault.identity import create

A = InstanceId("a")
GATE = SimpleNamespace(
    settings=Settings(Config()),
    queues=SimpleNamespace(before=lambda _: None),
    incidents=SimpleNamespace(incident_of=lambda _: None),
    forget=lambda _: None,
)


class SlowStore:
    """A real store whose writes wait for a word, as on a disk that is slow."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.may_write = asyncio.Event()
        self.begun = asyncio.Event()
        self.full = False

    async def _wait(self) -> None:
        self.begun.set()
        await self.may_write.wait()
        if self.full:
            raise StoreError("the disk is full", code="disk_full")

    async def save(self, *args: object) -> object:
        await self._wait()
        return await self._store.save(*args)  # type: ignore[arg-type]


@pytest.fixture
async def slow(tmp_path):
    """A registry over such a store."""
    store = await Store.open(tmp_path / "agent.db")
    instance = Instance(A, "sandbox", True)
    create(tmp_path / "sessions", instance)
    await store.add(instance, SessionRecord(), JournalEntry("created", "made"))
    disk = SlowStore(store)
    registry = Registry(disk, GATE, tmp_path / "sessions")
    registry.add(instance, SessionRecord())
    yield registry, disk, store
    await store.close()


async def test_a_change_is_shown_when_it_is_on_the_disk(slow):
    registry, disk, store = slow
    facts = registry.facts[A]
    facts.record = replace(facts.record, attempts=5)
    facts.instance = replace(facts.instance, enabled=False)
    saving = asyncio.create_task(registry.save(facts))
    await disk.begun.wait()
    shown = registry.view(A)
    assert (shown.instance.enabled, shown.should_run, shown.record.attempts) == (True, True, 0)
    assert [r.attempts for _, r in await store.instances()] == [0], "as the disk has it"
    disk.may_write.set()
    await saving
    shown = registry.view(A)
    assert shown.record.attempts == 5
    assert shown.instance.enabled is shown.should_run is False


async def test_where_the_disk_takes_nothing_the_truth_is_shown_all_the_same(slow):
    registry, disk, _ = slow
    facts = registry.facts[A]
    disk.full = True
    disk.may_write.set()
    facts.record = replace(facts.record, attempts=5)
    with pytest.raises(StoreError):
        await registry.save(facts)
    assert registry.view(A).record.attempts == 5
