"""The picture of an instance promises nothing that will not happen."""

from dataclasses import replace

import pytest

from agent.api.present import shown_wait
from agent.core.model import Health, HealthVerdict, Instance, SessionRecord
from agent.core.session import Session, Wait
from agent.core.words import ConnectionStatus, InstanceId

WALL = 1_700_000_000.0


def session(**more) -> Session:
    return Session(Instance(InstanceId("a"), "sandbox", True), SessionRecord(**more), at_wall=WALL)


@pytest.mark.parametrize(
    ("reason", "strikes", "told"),
    [
        ("connection_lost", 0, True),
        ("banned", 0, False),
        ("temporary_ban", 1, True),
        ("temporary_ban", 2, False),
    ],
)
def test_a_next_try_is_shown_only_where_one_will_come(reason, strikes, told):
    waits = session(reason=reason, strikes=strikes, not_before_wall=WALL + 100)
    assert (waits.next_attempt_wall is not None) is told
    waits.at_wall += 100
    assert waits.next_attempt_wall is None


@pytest.mark.parametrize(
    ("verdict", "reason", "told"),
    [
        ("healthy", "", False),
        ("disconnected", "temporary_ban", False),
        ("disconnected", "network_down", True),
        ("not_found", "not_running", True),
    ],
)
def test_an_outage_is_shown_only_for_sessions_that_wait_for_its_end(verdict, reason, told):
    waits = session()
    waits.verdict = HealthVerdict(Health(verdict), ConnectionStatus.RECONNECTING, reason, "so")
    waits.wait = Wait("network_down")
    assert shown_wait(waits)["wait_reason"] == ("network_down" if told else "")
    waits.instance = replace(waits.instance, enabled=False)
    assert shown_wait(waits)["wait_reason"] == ""
