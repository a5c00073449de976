"""What instances use is known soon after their start, and the rest waits for its turn."""

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import boot_now
from agent.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.supervise.facts import Facts
from agent.supervise.passes.observe import note_unit
from agent.supervise.periodic import usage as sampling
from agent.supervise.periodic.usage import SETTLED, UsageSampler


def running(id: str, *, age: float) -> Facts:
    """This very process plays its worker: one that surely can be measured."""
    unit = UnitStatus(UnitState.ACTIVE, "run1", os.getpid(), since=boot_now() - age)
    return Facts(Instance(InstanceId(id), "sandbox", True), SessionRecord(), unit)


@pytest.fixture
def bench() -> Callable[..., tuple[UsageSampler, dict[InstanceId, Facts]]]:
    def make(
        *all_facts: Facts, measure: bool = True
    ) -> tuple[UsageSampler, dict[InstanceId, Facts]]:
        known = {facts.id: facts for facts in all_facts}
        registry = SimpleNamespace(facts=known, touch=lambda _: None)
        usual = Config()
        config = replace(
            usual,
            memory=replace(usual.memory, measure=measure),
            start=replace(usual.start, first_check=0.0),
        )
        sampler = UsageSampler(
            cast(Any, registry),
            lambda: config,
            limit=lambda _: 0,
            well=lambda _: True,
            wake=lambda _: None,
            checked=lambda *_: None,
            note=lambda _: None,
        )
        return sampler, known

    return make


async def test_a_new_worker_is_measured_once_it_has_settled(bench: Any) -> None:
    old, young = running("old", age=60.0), running("young", age=0.0)
    sampler, _ = bench(old, young)
    await sampler.sample_new()
    assert old.run.memory_bytes is not None
    assert old.run.memory_bytes > 1 << 20
    assert young.run.memory_bytes is None
    assert old.run.memory_history.samples == (), "what has hardly started is no trend"
    young.unit = replace(young.unit, since=boot_now() - SETTLED - 1)
    old.run.memory_bytes = 1
    await sampler.sample_new()
    assert young.run.memory_bytes is not None
    assert old.run.memory_bytes == 1, "measured once; the next time is the whole look's"
    await sampler.sample()
    assert old.run.memory_bytes > 1
    assert len(old.run.memory_history.samples) == 1
    young.run.memory_bytes = 1
    await sampler.sample_new()
    assert young.run.memory_bytes == 1, "the whole look had seen it"


async def test_nothing_is_measured_where_the_setting_turns_it_off(bench: Any) -> None:
    one = running("one", age=60.0)
    sampler, _ = bench(one, measure=False)
    await sampler.sample_new()
    await sampler.sample()
    assert one.run.memory_bytes is None


async def test_an_operator_who_looks_at_one_sees_what_it_uses_now(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = running("one", age=1.0), running("other", age=1.0)
    sampler, _ = bench(one, other)
    await sampler.measure_now(one.id)
    assert one.run.memory_bytes is not None
    assert other.run.memory_bytes is None
    assert one.run.memory_history.samples == (), "a look of an operator is no point of the trend"
    one.run.memory_bytes = 1
    await sampler.measure_now(one.id)
    assert one.run.memory_bytes == 1, "measured a moment ago"
    monkeypatch.setattr(sampling, "FRESH", 0.0)
    await sampler.measure_now(one.id)
    assert one.run.memory_bytes > 1


async def test_the_use_of_an_earlier_worker_does_not_count_for_the_next(bench: Any) -> None:
    one = running("one", age=60.0)
    sampler, _ = bench(one)
    await sampler.sample()
    note_unit(one, one.unit)
    assert one.run.memory_bytes is not None
    assert len(one.run.memory_history.samples) == 1
    note_unit(one, replace(one.unit, run="run2"))
    assert (one.run.memory_bytes, one.run.cpu_seconds, one.run.processes) == (None, None, None)
    assert one.run.memory_history.samples == ()
