"""What one life of the agent counted is there in the next; rubbish in its place does no harm."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.core.figures import RepairStatistics
from agent.store.database import Store
from agent.supervise.upkeep import STATISTICS, Upkeep


@pytest.fixture
async def store(tmp_path):
    one = await Store.open(tmp_path / "agent.db")
    yield one
    await one.close()


def house(store):
    """A registry as far as a handover looks at it."""
    return SimpleNamespace(statistics=RepairStatistics(), store=store)


async def test_statistics_are_handed_over(store):
    registry = house(store)
    registry.statistics = RepairStatistics(repaired=3, check_seconds=0.5)
    await Upkeep(registry).keep()

    registry = house(store)
    await Upkeep(registry).take_over()
    assert registry.statistics == RepairStatistics(repaired=3, check_seconds=0.5)


@pytest.mark.parametrize("text", ["", '{"checked": "x"}'])
async def test_statistics_that_cannot_be_read_begin_at_zero(store, text):
    await store.put_facts({STATISTICS: text})
    registry = house(store)
    await Upkeep(registry).take_over()
    assert replace(registry.statistics, since_wall=0.0) == RepairStatistics()
    assert registry.statistics.since_wall == pytest.approx(time.time(), abs=60)
