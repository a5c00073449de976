from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.breaker import CLOCK_STEP, Breaker, BreakerState, remaining
from agent.core.model import ConnectionStatus, SessionRecord
from agent.core.reasons import REASONS, Permanence, reason_of
from agent.core.reconnect import (
    ReconnectPolicy,
    after_connected,
    after_drop,
    after_lasting,
    after_refusal,
    after_try,
    delay_for,
    forgive,
    needs_connect,
    not_before,
)
from agent.core.words import Claim
from tests.core.made import WALL, records, seen

POLICY = ReconnectPolicy()
BREAKER = ReconnectPolicy().breaker
jitters = st.floats(0, 1)
codes = st.sampled_from([*REASONS, "never heard of"])


@pytest.mark.parametrize(
    ("code", "delays"),
    [
        pytest.param("unknown", [2, 3, 4.5, 6.75], id="default"),
        pytest.param("conflict", [30, 45, 67.5], id="conflict"),
        pytest.param("restart_required", [0, 3, 4.5], id="at once, then like any other"),
        pytest.param("client_outdated", [120, 180, 270, 405, 607.5, 900, 900], id="15 minutes"),
        pytest.param("no_lease", [2, 2, 2], id="its lease says when"),
        pytest.param("worker_failed", [10, 15, 22.5, 33.75, 50.625, 60, 60], id="a minute at most"),
    ],
)
def test_every_reason_has_its_delays(code, delays):
    got = [delay_for(reason_of(code), tries, POLICY, 0.0) for tries in range(len(delays))]
    assert got == delays


@given(st.integers(0, 10**6), jitters, codes)
def test_delays_stay_within_bounds(tries, jitter, code):
    reason = reason_of(code)
    longest = POLICY.max if reason.max is None else reason.max
    delay = delay_for(reason, tries, POLICY, jitter)
    assert jitter * (tries > 0 and not reason.local) <= delay <= longest + POLICY.jitter


@given(st.integers(0, 200), jitters, st.floats(0.1, 100), st.floats(1, 10))
def test_delays_never_shrink(attempts, jitter, base, factor):
    policy, reason = ReconnectPolicy(factor=factor), replace(reason_of("unknown"), base=base)
    delays = [delay_for(reason, n, policy, jitter) for n in (attempts, attempts + 1)]
    assert delays == sorted(delays)
    assert delays[0] == delay_for(reason, attempts, policy, 0.0) + policy.jitter * jitter


def test_the_life_of_a_breaker():
    breaker = Breaker()
    for at in range(4):
        breaker = breaker.after_failure(at, BREAKER)
        assert breaker.state(at, BREAKER) is BreakerState.CLOSED
    breaker = breaker.after_failure(4, BREAKER)
    assert breaker.state(603.9, BREAKER) is BreakerState.OPEN
    assert not breaker.may_try(603.9, BREAKER)
    assert breaker.state(604, BREAKER) is BreakerState.HALF_OPEN
    trial = breaker.after_try(604, BREAKER)
    assert not trial.may_try(605, BREAKER), "one trial at a time"
    again = trial.after_failure(610, BREAKER)
    assert again.state(1209, BREAKER) is BreakerState.OPEN
    assert again.may_try(1210, BREAKER)


@given(
    st.lists(
        st.tuples(st.sampled_from(["fail", "try", "succeed"]), st.floats(0, 1e9)), max_size=30
    ),
    st.floats(0, 1e9),
)
def test_no_clock_holds_a_breaker_longer_than_its_pause(life, now):
    breaker = Breaker()
    for event, at in life:
        if event == "fail":
            breaker = breaker.after_failure(at, BREAKER)
        elif event == "succeed":
            breaker = Breaker()
        elif breaker.may_try(at, BREAKER):
            breaker = breaker.after_try(at, BREAKER)
    assert 0 <= breaker.trial_in(now, BREAKER) <= BREAKER.pause


def lose(record, code="connection_lost", at=WALL, **more):
    return after_drop(record, code, POLICY, at, 0.0, **more)


connect = partial(after_connected, policy=POLICY)


def attempt(record, at=WALL):
    return after_try(record, POLICY, at, 0.0)


def test_a_session_that_never_comes_back_waits_longer_each_time():
    record, at, waits = connect(SessionRecord(), WALL), WALL + 1000, []
    for _ in range(6):
        record = lose(record, at=at)
        waits.append(record.not_before_wall - at)
        at = record.not_before_wall
        record = attempt(record, at)
    assert waits == pytest.approx([1, 1.5, 2.25, 3.375, 5.0625, 7.59375])
    assert record.attempts == 6
    assert record.breaker.opened_at is not None


def test_a_cause_on_this_machine_opens_no_circuit():
    record = SessionRecord()
    for _ in range(BREAKER.failures):
        record = lose(record, "worker_failed")
    assert record.breaker.opened_at is None


def test_attempts_end_after_a_minute_of_connection_and_not_before():
    record = SessionRecord()
    for at in range(0, 200, 10):
        record = attempt(lose(connect(record, WALL + at), at=WALL + at + 5), WALL + at + 6)
    assert record.attempts == POLICY.attempts // 2 + 1, "it counts on, and is not given up"
    for _ in range(POLICY.attempts):
        record = attempt(lose(record, at=WALL + 300), WALL + 301)
    assert record.attempts > POLICY.attempts, "without any connection it is"
    assert attempt(connect(record, WALL + 302)).attempts == POLICY.attempts // 2 + 1, "it can"
    connected = connect(replace(record, attempts=3), WALL + 400)
    assert [after_lasting(connected, WALL + at).attempts for at in (459, 460)] == [3, 0]
    assert lose(connected, at=WALL + 460).attempts == 0
    down = replace(connected, status=ConnectionStatus.RECONNECTING)
    assert after_lasting(down, WALL + 9999).attempts == 3


def test_an_order_to_try_past_the_looks_ends_with_the_connection():
    assert not connect(SessionRecord(past_looks=True), WALL).past_looks


@pytest.mark.parametrize("until", [None, WALL - 1])
def test_a_temporary_ban_without_an_end_to_come_waits_an_hour_and_is_tried_once(until):
    record = lose(SessionRecord(paired=True), "temporary_ban", until_wall=until)
    assert record.not_before_wall == WALL + 3600
    assert seen(record=record, claim=None).gave_up(POLICY) == ""
    again = lose(attempt(record), "temporary_ban", until_wall=until)
    assert seen(record=again, claim=None).gave_up(POLICY) == "temporary_ban"


@pytest.mark.parametrize(("code", "first"), [("restart_required", 0), ("connection_lost", 1)])
def test_the_first_drop_of_a_short_connection_waits_as_its_reason_says(code, first):
    record = lose(connect(attempt(lose(SessionRecord())), WALL + 5), code, WALL + 20)
    assert record.not_before_wall == WALL + 20 + first
    record = lose(connect(attempt(record), WALL + 60), code, WALL + 70)
    assert record.not_before_wall > WALL + 70 + first, "the second one in a row waits longer"


def test_a_login_that_is_refused_without_a_cause_is_tried_for_hours():
    """WhatsApp's 500 is also what an outage of its own looks like."""
    record, wall, tries = connect(SessionRecord(), WALL), WALL + 60, []
    while not seen(record=record).gave_up(POLICY):
        record = lose(record, "bad_session", wall)
        wall = record.not_before_wall
        tries.append(wall - WALL)
        record = attempt(record, wall)
    assert len(tries) == POLICY.attempts
    assert tries[1] < 120, "the first ones soon"
    assert 4 * 3600 < tries[-1] < 24 * 3600


def test_conflicts_are_counted_until_a_connection_lasts():
    record = lose(connect(SessionRecord(), WALL), "conflict", WALL + 10)
    assert record.strikes == 1
    record = lose(connect(attempt(record), WALL + 50), "conflict", WALL + 60)
    assert record.strikes == 2
    record = lose(connect(record, WALL + 70), "connection_lost", WALL + 1000)
    assert record.strikes == 0


def test_an_operator_forgives_everything():
    record = attempt(lose(SessionRecord(paired=True, account="a"), "banned"))
    kept = {"status": record.status, "status_since_wall": record.status_since_wall}
    assert forgive(record) == replace(SessionRecord(paired=True, account="a"), **kept)


@given(records, st.floats(0, 1e10), st.floats(0, 1e6))
def test_a_clock_that_jumps_never_makes_a_wait_longer_than_its_policy(record, wall, now):
    wait = not_before(record, POLICY, now, wall) - now
    reason = reason_of(record.reason)
    if reason.permanence is not Permanence.AT_TIME:
        assert 0 <= wait <= max(POLICY.max, reason.max or 0) + POLICY.jitter + 1e-6


@given(st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 1e4))
def test_f51_whatever_a_clock_did_a_wait_ends_while_it_is_looked_at(until, wall, longest):
    """Seen every minute, as the passes do: a wait that is cut again each time would never end."""
    minutes = 0
    while remaining(until, wall + 60 * minutes, longest) > 0:
        minutes += 1
        assert 60 * minutes <= longest + CLOCK_STEP + 60


@given(records, codes, jitters)
def test_a_drop_shows_the_status_of_its_reason(record, code, jitter):
    dropped = after_drop(record, code, POLICY, WALL, jitter)
    assert dropped.status is reason_of(code).status
    assert dropped.status is not ConnectionStatus.CONNECTED or code == "restricted"
    assert dropped.not_before_wall >= WALL


def test_refusals_in_a_row_open_the_circuit_and_what_was_not_reached_does_not():
    record = SessionRecord()
    for code in ("backend_down", "circuit_open", "") * 3:
        assert after_refusal(record, code, POLICY, WALL) == record
    for _ in range(POLICY.breaker.failures):
        assert record.breaker.opened_at is None
        record = after_refusal(record, "remote_refused", POLICY, WALL)
    assert record.breaker.opened_at == WALL


def test_only_one_that_the_agent_was_asked_to_make_is_made_where_its_server_has_none() -> None:
    missing = Claim(ConnectionStatus.DISCONNECTED, "remote_missing", raw="missing")
    assert needs_connect(missing, paired=False)
    assert not needs_connect(missing, paired=False, adopted=True)
    assert needs_connect(Claim(ConnectionStatus.QR_REQUIRED), paired=False) is False
    idle = Claim(ConnectionStatus.DISCONNECTED, "qr_idle")
    assert needs_connect(idle, paired=False, adopted=True)
