"""Whether an address can be reached: when to look, when to try, what a false answer costs."""

from dataclasses import replace

import pytest

from agent.core.breaker import BreakerState, breaker_of
from agent.core.health.judge import judge_health
from agent.core.health.policy import HealthPolicy
from agent.core.model import ConnectionStatus, Health, SessionRecord
from agent.core.network.reach import (
    NETWORK_CODES,
    REACHED_CODES,
    May,
    Reach,
    after_connection,
    after_failed_look,
    after_failure,
    after_good_look,
    ask_reach,
    begin_try,
    next_moment,
)
from agent.core.plan import ActionKind
from agent.core.reasons import REASONS
from agent.core.reconcile import OWN_TIME, plan_actions
from agent.core.reconnect import (
    ReconnectPolicy,
    after_connected,
    after_drop,
    after_try,
    spare_unreached,
)
from tests.core.made import NOW, WALL, said, seen

POLICY = ReconnectPolicy().reach
RULES = ReconnectPolicy()
SEEN = after_good_look(Reach(), 0.0)
REFUSED = "connection refused"


def away(reach=SEEN, now=100.0):
    return after_failed_look(reach, REFUSED, POLICY, now, 0.5)


def ask(reach, now):
    return ask_reach(reach, POLICY, now)


def test_a_try_needs_a_fresh_look():
    assert ask(Reach(), 0.0) is May.LOOK
    assert ask(SEEN, 5.0) is May.TRY
    assert ask(SEEN, 5.1) is May.LOOK
    assert ask(after_connection(SEEN, 100.0), 104.0) is May.TRY, "a connection is as good"


def test_while_the_looks_fail_no_session_tries_and_the_first_good_look_frees_all():
    reach = away()
    assert (reach.away, reach.cause, ask(reach, 101.0)) == (True, REFUSED, May.WAIT)
    back = after_good_look(reach, 130.0)
    assert (back.away, back.back_at, back.cause) == (False, 130.0, "")
    assert ask(back, 130.0) is May.TRY


def test_a_try_that_fails_in_spite_of_good_looks_makes_the_next_rarer():
    reach, at, waits = SEEN, 10.0, []
    for _ in range(6):
        reach = after_good_look(reach, at)
        assert ask(reach, at) is May.TRY
        reach = after_failure(reach, "connection_lost", POLICY, at, tried=True)
        for _ in range(99):  # the others that tried beside it
            reach = after_failure(reach, "connection_lost", POLICY, at, tried=True)
        waits.append(next_moment(reach, POLICY) - at)
        assert ask(reach, at + waits[-1] - 0.1) is May.WAIT
        at += waits[-1]
        assert ask(reach, at) is May.LOOK
    assert waits == [2, 4, 8, 10, 10, 10]
    assert after_connection(reach, at).alarms == 0
    assert ask(after_good_look(away(reach, at), at), at) is May.TRY, "an outage that ended is news"


def test_the_drop_of_a_connection_is_no_false_alarm():
    reach = after_failure(SEEN, "connection_lost", POLICY, 1.0, tried=False)
    assert (reach.alarms, ask(reach, 1.0)) == (0, May.LOOK)


def test_where_looks_see_nothing_a_session_tries_all_the_same():
    """A firewall or a certificate may stop the agent's looks and not the sessions."""
    reach = away(Reach())
    assert ask(reach, 100.0) is May.TRY
    reach = begin_try(reach, 100.0)
    assert ask(reach, 100.0) is May.WAIT, "one at a time"
    reach = after_connection(reach, 103.0)
    assert (reach.away, ask(reach, 103.0)) == (False, May.TRY)
    reach = after_failure(reach, "connection_lost", POLICY, 5000.0, tried=False)
    assert ask(reach, 5000.0) is May.TRY, "the next outage is met in the same way"


@pytest.mark.parametrize("outage", [30, 900])
def test_where_looks_were_good_before_an_outage_costs_at_most_one_try(outage):
    reach, tries = away(now=0.0), 0
    for at in range(1, outage):
        if ask(reach, at) is May.TRY:
            reach, tries = begin_try(reach, at), tries + 1
    assert tries <= 1


def test_a_word_of_whatsapp_itself_shows_that_it_is_reached():
    assert after_failure(away(), "logout", POLICY, 101.0, tried=True).away is False
    assert after_failure(away(), "misconfigured", POLICY, 101.0, tried=True).away is True
    assert set(REASONS) >= NETWORK_CODES | REACHED_CODES
    assert not NETWORK_CODES & REACHED_CODES


# what it does to a session's record


def test_an_unreached_address_opens_no_breaker_and_spends_no_attempt():
    record = after_connected(SessionRecord(paired=True), WALL)
    for number in range(50):
        now = WALL + 400.0 * number
        record = spare_unreached(
            after_drop(record, "connection_lost", RULES, now, 0.5), RULES, now + 1
        )
        assert (record.reason, record.attempts) == ("unreachable", 0)
        assert breaker_of(record).state(now, RULES.breaker) is BreakerState.CLOSED
        assert record.not_before_wall <= now + 60
        record = after_try(record, RULES, now + 100, 0.5)


def test_a_drop_without_a_reached_address_gives_its_attempt_back_once():
    record = SessionRecord(paired=True, attempts=4, breaker_failures=4)
    record = after_drop(record, "connection_lost", RULES, WALL, 0.5)
    once = spare_unreached(record, RULES, WALL + 1)
    assert (once.attempts, once.breaker_failures, once.breaker_opened_wall) == (3, 4, 0.0)
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
        pytest.param(said(Status.AUTH_FAILURE, reason="banned"), Health.DISCONNECTED, id="banned"),
    ],
)
def test_an_address_that_is_away_explains_not_everything(claim, health):
    verdict = judge_health(held(claim), HEALTH, NOW)
    assert (verdict.health, verdict.reason != "unreachable") == (health, True)


def test_an_engine_that_connects_by_itself_is_asked_when_its_address_is_back():
    waits = seen(claim=said(Status.RECONNECTING, ago=100.0, reason="connection_lost"))

    def plan(back_at):
        observation = replace(waits, back_at=back_at)
        verdict = judge_health(observation, HEALTH, NOW)
        planned = plan_actions(observation, verdict, HEALTH, NOW)
        return [] if planned is None else list(planned.actions)

    assert plan(None) == []
    assert plan(NOW - OWN_TIME + 0.1) == [], "it has some time of its own"
    assert plan(NOW - OWN_TIME) == [ActionKind.CONNECT]
    assert plan(NOW - 200.0) == [], "it began to wait after that"
    waits = seen(claim=said(Status.INITIALIZING, ago=20.0, phase="loaded"))
    assert plan(NOW - OWN_TIME) == [ActionKind.RESTART], "its page was asked for in vain"
    waits = seen(claim=said(Status.LOADING, ago=20.0, phase="sync"))
    assert plan(NOW - OWN_TIME) == [], "its sync goes on"
