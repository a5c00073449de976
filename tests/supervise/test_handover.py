"""The next life of the agent has what one life learned; rubbish in its place does no harm."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.core.figures import Inbound, RepairStatistics, note_hour
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.upkeep import LEARNED, Upkeep


@pytest.fixture
async def store(tmp_path):
    one = await Store.open(tmp_path / "agent.db")
    yield one
    await one.close()


def house(store, *ids):
    """A registry as far as a handover looks at it."""
    facts = {
        InstanceId(id): Facts(Instance(InstanceId(id), "sandbox", True), SessionRecord())
        for id in ids
    }
    return SimpleNamespace(statistics=RepairStatistics(), store=store, facts=facts)


async def test_statistics_and_usual_rates_are_handed_over(store):
    registry = house(store, "a", "b")
    registry.statistics = RepairStatistics(repaired=3, check_seconds=0.5)
    learned = note_hour(Inbound(last_wall=5.0), time.time(), 120)
    registry.facts["a"].inbound = learned
    await Upkeep(registry).keep()

    registry = house(store, "a", "b")
    await Upkeep(registry).take_over()
    assert (registry.statistics.repaired, registry.statistics.check_seconds) == (3, 0.5)
    assert registry.facts["a"].inbound == learned
    assert registry.facts["b"].inbound == Inbound()


@pytest.mark.parametrize("text", ["", '{"statistics": {"checked": "x"}, "inbound": {}}'])
async def test_statistics_that_cannot_be_read_begin_at_zero(store, text):
    await store.put_facts({LEARNED: text})
    registry = house(store)
    await Upkeep(registry).take_over()
    assert replace(registry.statistics, since_wall=0.0) == RepairStatistics()
    assert registry.statistics.since_wall == pytest.approx(time.time(), abs=60)
