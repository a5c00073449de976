"""The faults of `scripts/chaos fleet`: each ends, whatever another one did to the same machine."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.nemeses.faults import FAULTS
from scripts.nemeses.one_round import Round
from tests.conftest import Eventually
from tests.fleet.agents import FleetOfAgents, fleet_of_agents
from tests.waiting import Pauses


class First(random.Random):
    def choice(self, every: Sequence[Any]) -> Any:
        return every[0]


@pytest.fixture
async def fleet(tmp_path: Path, eventually: Eventually) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        await fleet.create("shop", on="a")
        await eventually(lambda: fleet.connected(["shop"]), within=30)
        await eventually(lambda: fleet.copied(["shop"]), within=30)
        yield fleet


def stopped(fleet: FleetOfAgents) -> list[int]:
    found = []
    for it in fleet["a"].processes():
        with suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            if it.status() == psutil.STATUS_STOPPED:
                found.append(it.pid)
    return found


async def test_two_faults_of_one_machine_are_undone_once(
    fleet: FleetOfAgents, pauses: Pauses
) -> None:
    a = fleet["a"]
    every = [
        ("machine frozen", "agent frozen"),
        ("agent frozen", "machine frozen"),
        ("agent frozen", "killed in a planned move"),
        ("agent killed", "machine killed"),
        ("machine frozen", "agent killed"),
    ]
    for names in every:
        async with asyncio.timeout(120), AsyncExitStack() as ended:
            round = Round(fleet, First(1), ended, {"shop": "a"}, {})
            for name in names:
                begun, still = time.monotonic(), pauses.total
                await FAULTS[name](round)
                took = time.monotonic() - begun - (pauses.total - still)
                assert took < 10, "it waited for a machine that stands still"
        assert a.runs, names
        assert stopped(fleet) == [], names
        await a.fleet()


async def test_a_fault_that_fails_leaves_no_machine_frozen(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    with pytest.raises(KeyError):
        async with AsyncExitStack() as ended:
            round = Round(fleet, First(1), ended, {"shop": "a"}, {})
            await FAULTS["machine frozen"](round)
            # A process stops when it gets its turn.
            await eventually(lambda: stopped(fleet))
            await FAULTS["machine's clock stepped"](round)
    assert stopped(fleet) == []
