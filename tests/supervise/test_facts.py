"""What a worker says, with the times that the judging needs."""

import pytest

from agent.core.model import (
    ConnectionStatus,
    Instance,
    InstanceId,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.words import Claim
from agent.supervise.facts import Facts


@pytest.fixture
def facts():
    unit = UnitStatus(UnitState.ACTIVE, "run1", 7)
    return Facts(Instance(InstanceId("a"), "sandbox", True), SessionRecord(), unit)


def loading(phase: str, progress: float | None = None, still: float = 0.0) -> Claim:
    return Claim(ConnectionStatus.LOADING, phase=phase, progress=progress, still_for=still)


def test_a_phase_that_began_under_an_agent_before_us_began_then(facts):
    facts.heard(loading("login", still=170.0), 1000.0)
    assert facts.run.claim.phase_since == 830.0
    facts.heard(loading("login", still=171.5), 1001.0)
    assert facts.run.claim.phase_since == 830.0, "once known, it is not moved by a word's delay"
    facts.heard(loading("sync", still=0.5), 1010.0)
    assert facts.run.claim.phase_since == 1009.5
