"""A machine that many others ask for a promise at once: nothing is written for it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.fleet.figures import FleetCounts
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.fleet import fleet_file
from agent.fleet.coordinator import Machine, Member
from agent.fleet.fleet_file import FleetMemory
from agent.fleet.keeper import Keeper
from tests.fleet.test_takeovers import ROW, Rows, answer

POLICY = LeasePolicy()
MACHINES = 500
ME = Member(1, 0, 0)


@pytest.fixture
async def keeper(tmp_path: Path) -> Keeper:
    rows: Any = Rows()
    asked: Any = None
    path, counts = tmp_path / "fleet.json", FleetCounts()
    keeper = Keeper(
        rows,
        Machine("a", ""),
        POLICY,
        path=path,
        ask_rival=asked,
        changed=lambda _owned, _lease: None,
        counts=counts,
    )
    await keeper.load()
    return keeper


async def test_a_promise_writes_nothing_and_holds_for_a_ttl(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    takeovers, begun = keeper.takeovers, boot_now() - POLICY.ttl
    await takeovers.see(ME, answer(1), begun)
    assert takeovers.lapsed().keys() >= {2}, "it may be taken over"

    def save(_path: Path, _memory: FleetMemory, _boot: str) -> None:
        raise AssertionError("a promise needs no disk")

    with monkeypatch.context() as patch:
        patch.setattr(fleet_file, "_save", save)
        assert all(keeper.promise(machine, 0) for machine in range(2, MACHINES))
    assert takeovers.lapsed().keys() <= {1}
    lapses = takeovers.sightings.machines[2].at + POLICY.ttl
    assert lapses > boot_now() + POLICY.usable


async def test_one_whose_takeover_is_being_written_down_gets_no_promise(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    takeovers, begun = keeper.takeovers, boot_now() - POLICY.ttl
    await takeovers.see(ME, answer(1), begun)
    written = asyncio.Event()
    change = takeovers.memory.change

    async def slow(how: Any) -> None:
        await written.wait()
        await change(how)

    with monkeypatch.context() as patch:
        patch.setattr(takeovers.memory, "change", slow)
        lease = Lease(boot_now() + POLICY.usable)
        beginning = asyncio.create_task(takeovers._begin(ROW, ME, lease))
        await asyncio.sleep(0)
        assert not keeper.promise(2, 0), "it is being written"
        written.set()
        assert await beginning
    assert not keeper.promise(2, 0), "it is on the disk"
    assert keeper.promise(2, 1), "it came back and knows"
    assert not await takeovers._begin(ROW, ME, lease), "it was promised to wait"
