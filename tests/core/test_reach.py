"""An address that is away changes a session's record, its verdict and its plan."""

import pytest

from agent.core.breaker import Breaker, BreakerState
from agent.core.health import HealthPolicy, judge_health
from agent.core.model import ConnectionStatus, Health, SessionRecord
from agent.core.reasons import NETWORK_CODES, REACHED_CODES, REASONS
from agent.core.reconcile import OWN_TIME, ActionKind, plan_actions
from agent.core.reconnect import (
    ReconnectPolicy,
    after_connected,
    after_drop,
    after_try,
    spare_unreached,
)
from tests.core.made import NOW, WALL, said, seen
from tests.sessions import changed

RULES = ReconnectPolicy()


def test_no_code_tells_both_of_the_network_and_of_whatsapp():
    assert set(REASONS) >= NETWORK_CODES | REACHED_CODES
    assert not NETWORK_CODES & REACHED_CODES


def test_an_unreached_address_opens_no_breaker_and_spends_no_attempt():
    record = after_connected(SessionRecord(paired=True), WALL, RULES)
    for number in range(50):
        now = WALL + 400.0 * number
        record = spare_unreached(
            after_drop(record, "connection_lost", RULES, now, 0.5), RULES, now + 1
        )
        assert (record.reason, record.attempts) == ("unreachable", 0)
        assert record.breaker.state(now, RULES.breaker) is BreakerState.CLOSED
        assert record.not_before_wall <= now + 60
        record = after_try(record, RULES, now + 100, 0.5)
        assert record.attempts == 0, "in spite of looks that fail: it may never hear how that went"


def test_a_drop_without_a_reached_address_gives_its_attempt_back_once():
    record = SessionRecord(paired=True, attempts=4, breaker=Breaker(4))
    record = after_drop(record, "connection_lost", RULES, WALL, 0.5)
    once = spare_unreached(record, RULES, WALL + 1)
    assert (once.attempts, once.breaker) == (3, Breaker(4))
    assert spare_unreached(once, RULES, WALL + 2) == once
    final = after_drop(record, "logout", RULES, WALL, 0.5)
    assert spare_unreached(final, RULES, WALL + 1) == final


# what it does to the verdict and the plan

HEALTH = HealthPolicy()
Status = ConnectionStatus


def held(claim, **changes):
    return seen(
        claim=claim,
        wait_reason="unreachable",
        wait_sentence="cannot reach web.whatsapp.com: no route to host",
        **changes,
    )


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(said(Status.DISCONNECTED, reason="connection_lost"), id="lost"),
        pytest.param(said(Status.INITIALIZING, phase="login"), id="stuck in a start"),
        pytest.param(said(Status.CONNECTED, proof_age=400.0), id="its proof is old"),
        pytest.param(
            said(Status.INITIALIZING, ago=2.0, phase="login", reason="connection_lost"),
            id="in a start, offline",
        ),
    ],
)
def test_a_session_says_what_cannot_be_reached_and_is_not_repaired(claim):
    observation = held(claim)
    verdict = judge_health(observation, HEALTH, NOW)
    assert (verdict.health, verdict.reason) == (Health.DISCONNECTED, "unreachable")
    assert "cannot reach web.whatsapp.com" in verdict.sentence
    assert plan_actions(observation, verdict, HEALTH, NOW) is None


@pytest.mark.parametrize(
    ("claim", "health"),
    [
        pytest.param(said(), Health.HEALTHY, id="connected"),
        pytest.param(said(Status.QR_REQUIRED, phase="login"), Health.CORRUPTED, id="unpaired"),
        (said(Status.DISCONNECTED, reason="parts_missing"), Health.DEGRADED),
        pytest.param(said(Status.AUTH_FAILURE, reason="banned"), Health.DISCONNECTED, id="banned"),
    ],
)
def test_an_address_that_is_away_explains_not_everything(claim, health):
    verdict = judge_health(held(claim), HEALTH, NOW)
    assert (verdict.health, verdict.reason != "unreachable") == (health, True)


def test_an_engine_that_connects_by_itself_is_asked_when_its_address_is_back():
    waits = seen(claim=said(Status.RECONNECTING, ago=100.0, reason="connection_lost"))

    def plan(back_at):
        observation = changed(waits, back_at=back_at)
        planned = plan_actions(observation, judge_health(observation, HEALTH, NOW), HEALTH, NOW)
        return [] if planned is None else list(planned.actions)

    assert plan(None) == []
    assert plan(NOW - OWN_TIME + 0.1) == [], "it has some time of its own"
    assert plan(NOW - OWN_TIME) == [ActionKind.CONNECT]
    assert plan(NOW - 200.0) == [], "it began to wait after that"
    waits = seen(claim=said(Status.INITIALIZING, ago=20.0, phase="loaded"))
    assert plan(NOW - OWN_TIME) == [ActionKind.RESTART], "its page was asked for in vain"
    waits = seen(claim=said(Status.LOADING, ago=20.0, phase="sync"))
    assert plan(NOW - OWN_TIME) == [], "its sync goes on"
