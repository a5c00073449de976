"""Who counts as failing alike."""

import pytest

from agent.core.incident import IncidentPolicy
from agent.core.model import (
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.supervise.facts import Facts
from agent.supervise.turns.incidents import Incidents

ZOMBIE = HealthVerdict(Health.STUCK, ConnectionStatus.RECONNECTING, "zombie", "")


def made(*ids):
    facts = {
        InstanceId(id): Facts(Instance(InstanceId(id), "sandbox", True, {}, 1.0), SessionRecord())
        for id in ids
    }
    return Incidents(IncidentPolicy, facts, lambda _: None, lambda _: None, lambda _: False), facts


@pytest.mark.parametrize(
    ("reason", "alone"),
    [("disabled", True), ("stopped", True), ("waiting_for_scan", True), ("starting", False)],
)
def test_one_that_was_laid_to_rest_fails_no_more(reason, alone):
    incidents, facts = made("a", "b")
    for one in facts.values():
        incidents.judged(one, ZOMBIE)
    assert not incidents.odd_one_out(facts["a"])
    rest = HealthVerdict(Health.DISCONNECTED, ConnectionStatus.DISCONNECTED, reason, "")
    incidents.judged(facts["b"], rest)
    assert incidents.odd_one_out(facts["a"]) is alone
