"""Figures of a worker that this machine does not tell are asked of the worker, and checked."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.errors import InvalidRequest, LinkError
from agent.host.machine import UNSEEN, Usage
from agent.supervise import upkeep as usage
from agent.supervise.facts import Facts, Settings
from agent.supervise.upkeep import UsageSampler, measure_whole

TOLD = {"memory_bytes": 5000, "cpu_seconds": 2.5, "processes": 3}
HIDDEN = 1 << 22
"""A pid without a process: as of one that the agent may not see."""


class Worker:
    """The near end of a link; an answer that is an error is raised."""

    def __init__(self, answer: Mapping[str, Any] | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def call(self, do: str, timeout: float) -> Mapping[str, Any]:
        self.asked.append(do)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def facts_of(id: str, link: Worker | None) -> Facts:
    unit = UnitStatus(UnitState.ACTIVE, "run1", HIDDEN + ord(id))
    facts = Facts(Instance(InstanceId(id), "sandbox", True), SessionRecord(), unit)
    facts.link = cast(Any, link)
    return facts


async def test_the_kernels_figure_counts_more_than_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where there are control groups, and none that counts memory."""
    seen = Usage(None, 7.0, 2)
    monkeypatch.setattr(usage.machine, "measure", lambda pids: dict.fromkeys(pids, seen))
    known = {InstanceId("a"): facts_of("a", Worker(TOLD))}
    assert await measure_whole({InstanceId("a"): 1}, known) == {"a": Usage(5000, 7.0, 2)}


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(None, id="without a link"),
        pytest.param(Worker(LinkError("cannot ask: silent", code="timeout")), id="silent"),
        pytest.param(Worker(InvalidRequest("cannot own_use: no such call")), id="an older one"),
    ],
)
async def test_a_worker_that_cannot_be_seen_is_asked_and_stays_unmeasured_without_an_answer(
    link: Worker | None,
) -> None:
    known = {InstanceId("a"): facts_of("a", link), InstanceId("b"): facts_of("b", Worker(TOLD))}
    found = await measure_whole({id: HIDDEN + ord(id) for id in known}, known)
    assert found == {"a": UNSEEN, "b": Usage(5000, 2.5, 3)}


@pytest.mark.parametrize("told", [-1, 1 << 50, 1e400, True, float("nan")])
async def test_an_answer_with_what_is_no_figure_is_dropped(told: object) -> None:
    known = {InstanceId("a"): facts_of("a", Worker(dict.fromkeys(TOLD, told)))}
    assert await measure_whole({InstanceId("a"): HIDDEN + ord("a")}, known) == {"a": UNSEEN}


async def test_a_session_that_is_deleted_while_another_frees_its_caches_is_left_out() -> None:
    """Each may take ten seconds over it, and an error would end the agent."""
    a, b = facts_of("a", Worker({})), facts_of("b", Worker({}))
    known = {facts.id: facts for facts in (a, b)}
    a.run.memory_bytes = b.run.memory_bytes = 1 << 40
    gate = SimpleNamespace(wake=lambda _: known.pop(b.id, None))
    registry: Any = SimpleNamespace(facts=known, settings=Settings(Config()), gate=gate)
    await UsageSampler(registry).care()
    assert (a.freed_at is None, b.freed_at is None) == (False, True)
