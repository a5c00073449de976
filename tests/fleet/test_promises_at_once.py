"""A machine that many others ask for a promise at once: each is on its disk before it is given."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.clock import boot_id, boot_now
from agent.core.fleet.lease import LeasePolicy
from agent.errors import VaultError
from agent.fleet import fleet_file
from agent.fleet.fleet_file import FleetMemory, Memory
from agent.fleet.rivals import promise

POLICY = LeasePolicy()
MACHINES = 500


@pytest.fixture
async def memory(tmp_path: Path) -> Memory:
    memory = Memory(tmp_path / "fleet.json")
    await memory.load(boot_id(), boot_now(), POLICY)
    return memory


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[FleetMemory]:
    saved: list[FleetMemory] = []
    save = fleet_file._save

    def note(path: Path, memory: FleetMemory) -> None:
        save(path, memory)
        saved.append(memory)

    monkeypatch.setattr(fleet_file, "_save", note)
    return saved


async def test_promises_that_are_asked_for_at_once_are_on_the_disk_by_few_writings(
    memory: Memory, saved: list[FleetMemory], tmp_path: Path
) -> None:
    async def ask(machine: int) -> None:
        assert await promise(memory, machine, 0, "", POLICY)
        on_disk = json.loads((tmp_path / "fleet.json").read_text())
        assert str(machine) in on_disk["promises"]["until"]

    await asyncio.gather(*map(ask, range(MACHINES)))
    assert len(saved) <= 3
    assert len(memory.now.promises.until) == MACHINES


async def test_one_that_gives_up_takes_no_promise_of_another_machine_with_it(
    memory: Memory, saved: list[FleetMemory]
) -> None:
    asked = [asyncio.create_task(promise(memory, it, 0, "", POLICY)) for it in range(20)]
    await asyncio.sleep(0)
    for task in asked[:10]:
        task.cancel()
    given = await asyncio.gather(*asked, return_exceptions=True)
    assert given[10:] == [True] * 10
    assert memory.now.promises.until.keys() >= set(range(10, 20))
    assert await promise(memory, 77, 0, "", POLICY)
    assert saved[-1] == memory.now


async def test_a_promise_that_is_not_on_the_disk_is_not_given(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: Path, _memory: FleetMemory) -> None:
        raise VaultError("cannot write it: no space left", code="fleet_memory")

    with monkeypatch.context() as full:
        full.setattr(fleet_file, "_save", fails)
        asked = (promise(memory, it, 0, "", POLICY) for it in range(5))
        given = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(it, VaultError) for it in given)
    assert not memory.now.promises.until
    assert await promise(memory, 1, 0, "", POLICY)
