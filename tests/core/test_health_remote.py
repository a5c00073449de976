"""Verdicts of a session that someone else's server runs."""

from dataclasses import replace

import pytest

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    ConnectionStatus,
    Health,
    Instance,
    InstanceId,
    ProbeFact,
    SessionRecord,
    UnitState,
)
from agent.core.reconcile import may_try_now, plan_actions
from agent.core.recovery.ladder import needs_repair
from tests.core.made import NOW, said, seen, unit, without_worker
from tests.sessions import changed

S = ConnectionStatus
POLICY = HealthPolicy()
REMOTE = Instance(InstanceId("sales"), "evolution", True, {"backend": "evo", "remote": "Sales 1"})


@pytest.mark.parametrize(
    "observation",
    [
        seen(instance=REMOTE),
        seen(instance=REMOTE, claim=said(S.DISCONNECTED, reason="connection_lost")),
        seen(instance=REMOTE, probe=ProbeFact(False, NOW, 1.0, failures=9)),
        seen(instance=REMOTE, claim=None, linked_since=None),
        seen(instance=REMOTE, unit=unit(UnitState.ACTIVATING), claim=None, linked_since=None),
        changed(without_worker(), instance=REMOTE),
    ],
    ids=["connected", "dropped", "zombie", "silent", "activating", "no seat"],
)
def test_while_its_backend_is_away_it_inherits_that_and_tries_nothing(observation):
    held = changed(observation, wait_reason="backend_down")
    verdict = judge_health(held, POLICY, NOW)
    assert (verdict.health, verdict.reason) == (Health.DISCONNECTED, "backend_down")
    assert verdict.state is S.RECONNECTING
    assert not needs_repair(verdict)
    assert not may_try_now(held, POLICY, NOW)
    assert plan_actions(held, verdict, POLICY, NOW) is None


def test_a_backend_that_is_away_starts_no_disabled_session_and_forgets_no_logout():
    gone = SessionRecord(paired=True, reason="logout")
    held = changed(without_worker(record=gone), instance=REMOTE, wait_reason="backend_down")
    assert judge_health(held, POLICY, NOW).reason == "logout"


def test_the_status_of_an_earlier_agent_is_not_connected():
    its = seen(record=SessionRecord(status=S.CONNECTED))
    assert its.status is S.INITIALIZING
    its.verdict = judge_health(seen(), POLICY, NOW)
    assert its.status is S.CONNECTED


def test_a_session_unknown_to_its_backend_is_not_found_and_is_left_to_a_person():
    missing = seen(instance=REMOTE, claim=said(S.DISCONNECTED, reason="remote_missing"))
    verdict = judge_health(missing, POLICY, NOW)
    assert (verdict.health, verdict.reason) == (Health.NOT_FOUND, "remote_missing")
    assert "ensure-healthy" in verdict.sentence
    refused = without_worker(status_text="cannot look at 7: why", instance=REMOTE)
    assert judge_health(refused, POLICY, NOW).sentence == "cannot look at 7: why"
    assert plan_actions(missing, verdict, POLICY, NOW) is None


def test_a_servers_connecting_may_last_no_longer_than_any_passing_state():
    here, there = (
        seen(claim=said(S.RECONNECTING, ago=31), **more) for more in ({}, {"instance": REMOTE})
    )
    assert judge_health(here, POLICY, NOW).reason == "starting", "an engine of ours gets longer"
    late = judge_health(there, POLICY, NOW)
    assert (late.reason, late.sentence) == ("state_stuck", "RECONNECTING for 31 s in this try")
    in_time = seen(claim=said(S.RECONNECTING, ago=29), instance=REMOTE)
    assert judge_health(in_time, POLICY, NOW).reason == "starting"


OWN = SessionRecord(paired=True, account="5511")


def test_a_session_that_is_another_accounts_by_now_waits_for_a_person():
    claim = said(S.DISCONNECTED, reason="connection_lost", paired=True, account="5522")
    other = seen(instance=REMOTE, record=OWN, claim=claim)
    verdict = judge_health(other, POLICY, NOW)
    assert (verdict.state, verdict.reason) == (S.AUTH_FAILURE, "other_account")
    assert "wa-agent backends sessions" in verdict.sentence
    assert not needs_repair(verdict)
    assert plan_actions(other, verdict, POLICY, NOW) is None


@pytest.mark.parametrize(
    ("instance", "record", "account"),
    [
        pytest.param(REMOTE, OWN, "5511", id="the same"),
        pytest.param(REMOTE, OWN, "", id="the server does not say"),
        pytest.param(REMOTE, replace(OWN, reason="logout"), "5522", id="scanned after a logout"),
        pytest.param(REMOTE, replace(OWN, account=""), "5522", id="never known"),
        pytest.param(REMOTE, replace(OWN, paired=False), "5522", id="not paired"),
        pytest.param(replace(REMOTE, settings={}), OWN, "5522", id="on this machine"),
    ],
)
def test_whose_it_is_counts_only_where_both_are_known(instance, record, account):
    verdict = judge_health(
        seen(instance=instance, record=record, claim=said(account=account)), POLICY, NOW
    )
    assert verdict.healthy
