"""What one life of the agent learned is there in the next; rubbish in its place does no harm."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.figures import RepairStatistics, StepTally, note_check, note_step, open_trends
from agent.core.findings.silence import Inbound, note_hour
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.recovery.repair import RecoveryKind
from agent.store.database import Store
from agent.supervise.facts import Facts
from agent.supervise.periodic.upkeep import Learned, read_inbound, read_statistics, read_trends


@pytest.fixture
async def store(tmp_path):
    one = await Store.open(tmp_path / "agent.db")
    yield one
    await one.close()


def house(*ids):
    """A ladder and a registry as far as a handover looks at them."""
    facts = {
        InstanceId(id): Facts(Instance(InstanceId(id), "sandbox", True), SessionRecord())
        for id in ids
    }
    return SimpleNamespace(statistics=RepairStatistics()), SimpleNamespace(facts=facts)


async def test_statistics_and_usual_rates_are_handed_over(store):
    ladder, registry = house("a", "b")
    ladder.statistics = note_step(
        note_check(RepairStatistics(repaired=3), 0.5), RecoveryKind.RESTART, True, 2.0
    )
    learned = note_hour(Inbound(last_wall=5.0), time.time(), 120)
    registry.facts["a"].inbound = learned
    await Learned(store, ladder, registry, open_trends()).keep()

    ladder, registry = house("a", "b")
    await Learned(store, ladder, registry, open_trends()).take_over()
    assert ladder.statistics.repaired == 3
    assert ladder.statistics.steps == {"restart": StepTally(1, 0, 2.0)}
    assert registry.facts["a"].inbound == learned
    assert registry.facts["b"].inbound == Inbound()


async def test_statistics_of_deleted_sessions_are_removed(store):
    ladder, registry = house("a")
    registry.facts["a"].inbound = Inbound(last_wall=5.0)
    await Learned(store, ladder, registry, open_trends()).keep()
    ladder, registry = house()
    handover = Learned(store, ladder, registry, open_trends())
    await handover.take_over()
    await handover.keep()
    assert await store.get_facts("inbound:") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"steps": {"x": 1}}',
    ],
)
async def test_statistics_that_cannot_be_read_begin_at_zero(store, text):
    await store.put_facts({"repair_statistics": text})
    ladder, registry = house()
    await Learned(store, ladder, registry, open_trends()).take_over()
    assert replace(ladder.statistics, since_wall=0.0) == RepairStatistics()
    assert ladder.statistics.since_wall == pytest.approx(time.time(), abs=60)


@given(st.text())
def test_no_text_makes_reading_fail(text):
    read_statistics(text)
    read_inbound(text)
    read_trends(text)
    assert read_inbound('{"rates": [1, 2]}') is None
