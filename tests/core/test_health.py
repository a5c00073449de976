import pytest
from hypothesis import given

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    ConnectionStatus,
    Health,
    Override,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    Signal,
    UnitState,
)
from agent.core.reasons import REASONS, reason_of
from agent.core.reconcile import ActionKind, plan_actions
from tests.core.made import NOW, OFF, PAIRED, WALL, observations, said, seen, unit, without_worker
from tests.sessions import Desired, changed

POLICY = HealthPolicy()
S = ConnectionStatus
LEAK = Signal("memory_leak", Health.DEGRADED, "it grows")
KEYS = Signal("crypto_corrupted", Health.CORRUPTED, "its keys do not fit")
NEW = SessionRecord()


def dropped(reason, **record):
    return seen(
        claim=said(S.DISCONNECTED, reason=reason),
        record=SessionRecord(paired=True, reason=reason, **record),
    )


@pytest.mark.parametrize(
    ("observation", "health", "state", "reason"),
    [
        pytest.param(seen(), "healthy", S.CONNECTED, "", id="connected and answers"),
        pytest.param(
            seen(desired=OFF), "disconnected", S.DISCONNECTED, "disabled", id="disabled but runs"
        ),
        pytest.param(
            without_worker(desired=Desired(True, Override.STOPPED)),
            "disconnected",
            S.DISCONNECTED,
            "stopped",
            id="stopped by hand",
        ),
        pytest.param(
            without_worker(masked=True), "disconnected", S.DISCONNECTED, "masked", id="masked"
        ),
        pytest.param(
            without_worker(), "not_found", S.RECONNECTING, "not_running", id="should run, does not"
        ),
        pytest.param(
            without_worker(UnitState.FAILED, result="signal"),
            "degraded",
            S.RECONNECTING,
            "worker_failed",
            id="over its burst limit",
        ),
        pytest.param(
            without_worker(UnitState.FAILED, exit_status=78),
            "disconnected",
            S.DISCONNECTED,
            "misconfigured",
            id="configuration error",
        ),
        pytest.param(
            without_worker(UnitState.FAILED, record=SessionRecord(paired=True, attempts=20)),
            "degraded",
            S.DISCONNECTED,
            "attempts_used_up",
            id="attempts used up",
        ),
        pytest.param(
            without_worker(files=SessionFiles.DAMAGED),
            "corrupted",
            S.AUTH_FAILURE,
            "session_damaged",
            id="damaged files",
        ),
        pytest.param(
            without_worker(files=SessionFiles.ABSENT),
            "corrupted",
            S.AUTH_FAILURE,
            "session_missing",
            id="paired, and the folder is gone",
        ),
        pytest.param(
            without_worker(files=SessionFiles.UNPAIRED),
            "corrupted",
            S.AUTH_FAILURE,
            "unpaired_suspect",
            id="paired, and the store is empty",
        ),
        pytest.param(
            without_worker(
                files=SessionFiles.UNPAIRED, record=SessionRecord(paired=True, reason="logout")
            ),
            "disconnected",
            S.AUTH_FAILURE,
            "logout",
            id="empty store after a logout is no suspect",
        ),
        pytest.param(
            without_worker(UnitState.DEACTIVATING),
            "disconnected",
            S.RECONNECTING,
            "stopping",
            id="stopping",
        ),
        pytest.param(
            without_worker(UnitState.ACTIVATING),
            "stuck",
            S.INITIALIZING,
            "phase_process",
            id="process never ready",
        ),
        pytest.param(
            seen(claim=None, probe=None, linked_since=None),
            "stuck",
            S.INITIALIZING,
            "phase_process",
            id="worker takes no connection",
        ),
        pytest.param(
            seen(claim=None, probe=None, linked_since=NOW - 15),
            "degraded",
            S.INITIALIZING,
            "phase_process",
            id="worker says nothing for 15 s",
        ),
        pytest.param(
            seen(claim=None, probe=None, linked_since=NOW - 3),
            "disconnected",
            S.INITIALIZING,
            "starting",
            id="just attached",
        ),
        pytest.param(
            seen(probe=ProbeFact(False, NOW, 10, 2)),
            "degraded",
            S.CONNECTED,
            "ping_failed",
            id="two failed pings",
        ),
        pytest.param(
            seen(probe=ProbeFact(False, NOW, 10, 3)),
            "stuck",
            S.RECONNECTING,
            "zombie",
            id="three failed pings make a zombie",
        ),
        pytest.param(
            seen(probe=ProbeFact(True, NOW, 6.0)), "degraded", S.CONNECTED, "slow", id="slow"
        ),
        pytest.param(
            seen(claim=said(proof_age=91)),
            "degraded",
            S.RECONNECTING,
            "proof_old",
            id="proof older than its limit is not CONNECTED",
        ),
        pytest.param(
            seen(claim=said(S.INITIALIZING, phase="injected", reason="injection_failed", ago=999)),
            "stuck",
            S.INITIALIZING,
            "injection_failed",
            id="a page that changed",
        ),
        pytest.param(
            seen(claim=said(proof_age=181)), "stuck", S.RECONNECTING, "proof_old", id="no proof"
        ),
        pytest.param(
            seen(claim=said(proof_age=None, ago=5)),
            "disconnected",
            S.LOADING,
            "starting",
            id="says connected, not proved yet",
        ),
        pytest.param(
            seen(claim=said(proof_age=None, ago=31)),
            "degraded",
            S.LOADING,
            "not_proved",
            id="never proved",
        ),
        pytest.param(
            seen(claim=said(S.LOADING, phase="loaded", ago=60)),
            "stuck",
            S.LOADING,
            "phase_loaded",
            id="phase overdue",
        ),
        pytest.param(
            seen(claim=said(S.LOADING, ago=30)),
            "stuck",
            S.LOADING,
            "state_stuck",
            id="30 s in a state that should pass",
        ),
        pytest.param(
            seen(claim=said(S.RECONNECTING, ago=100)),
            "disconnected",
            S.RECONNECTING,
            "starting",
            id="the engine reconnects by itself",
        ),
        pytest.param(
            seen(claim=said(S.QR_REQUIRED), record=NEW),
            "disconnected",
            S.QR_REQUIRED,
            "waiting_for_scan",
            id="waits for a scan",
        ),
        pytest.param(
            seen(claim=said(S.QR_REQUIRED)),
            "corrupted",
            S.AUTH_FAILURE,
            "unpaired_suspect",
            id="paired, and shows a QR",
        ),
        pytest.param(
            seen(claim=said(S.AUTH_FAILURE, reason="unpaired_suspect")),
            "corrupted",
            S.AUTH_FAILURE,
            "unpaired_suspect",
            id="its worker found no pairing in its store",
        ),
        pytest.param(
            seen(
                claim=said(S.AUTH_FAILURE, reason="unpaired_suspect"),
                record=SessionRecord(paired=True, reason="logout"),
            ),
            "disconnected",
            S.AUTH_FAILURE,
            "logout",
            id="its worker found no pairing, and a logout is known",
        ),
        pytest.param(
            seen(claim=said(S.QR_REQUIRED, reason="logout")),
            "disconnected",
            S.QR_REQUIRED,
            "waiting_for_scan",
            id="QR after a logout",
        ),
        pytest.param(
            dropped("connection_lost"),
            "degraded",
            S.RECONNECTING,
            "connection_lost",
            id="connection lost",
        ),
        pytest.param(
            dropped("conflict", strikes=2),
            "degraded",
            S.DISCONNECTED,
            "conflict_foreign_owner",
            id="second conflict",
        ),
        pytest.param(dropped("banned"), "disconnected", S.AUTH_FAILURE, "banned", id="banned"),
        pytest.param(
            seen(signals=(LEAK, KEYS)),
            "corrupted",
            S.CONNECTED,
            "crypto_corrupted",
            id="the worst signal decides",
        ),
        pytest.param(
            seen(signals=(LEAK,), probe=ProbeFact(False, NOW, 10, 3)),
            "stuck",
            S.RECONNECTING,
            "zombie",
            id="a signal does not hide a zombie",
        ),
    ],
)
def test_verdict(observation, health, state, reason):
    verdict = judge_health(observation, POLICY, NOW)
    assert (verdict.health.value, verdict.state, verdict.reason) == (health, state, reason)


def test_cleanup_is_offered_only_where_no_pairing_is_lost():
    stuck = said(S.LOADING, phase="sync", ago=999)
    assert not judge_health(seen(claim=stuck), POLICY, NOW).should_cleanup
    assert judge_health(
        seen(claim=stuck, record=NEW, files=SessionFiles.UNPAIRED), POLICY, NOW
    ).should_cleanup


@given(observations)
def test_every_observation_has_one_verdict(observation):
    verdict = judge_health(observation, POLICY, NOW)
    assert verdict == judge_health(observation, POLICY, NOW)
    assert verdict.sentence
    assert verdict.healthy == (verdict.reason == "")


@given(observations)
def test_connected_is_never_published_without_a_fresh_proof(observation):
    verdict = judge_health(observation, POLICY, NOW)
    if verdict.state is S.CONNECTED and verdict.reason not in REASONS:
        proved_at = observation.claim.proved_at()
        assert NOW - proved_at <= POLICY.proof_limit


def test_the_sentence_of_a_page_that_is_not_whatsapp_says_what_came():
    code = "page_unusable"
    raw = 'HTTP 502 from web.whatsapp.com/, title "Bad Gateway"'
    observation = seen(
        claim=said(S.DISCONNECTED, reason=code, raw=raw), record=SessionRecord(reason=code)
    )
    assert judge_health(observation, POLICY, NOW).sentence == f"{reason_of(code).title}: {raw}"


def test_the_words_of_an_engine_are_no_part_of_another_sentence():
    lost = said(S.DISCONNECTED, reason="connection_lost", raw="MAIN/OFFLINE/TIMEOUT")
    title = reason_of("connection_lost").title
    assert judge_health(seen(claim=lost), POLICY, NOW).sentence == title


def test_a_worker_that_was_just_started_gets_its_time():
    fresh = seen(unit=unit(), claim=None, probe=None, linked_since=NOW - 1, record=PAIRED)
    assert judge_health(fresh, POLICY, NOW).reason == "starting"


@pytest.mark.parametrize(
    ("code", "health"),
    [
        pytest.param("temporary_ban", Health.DISCONNECTED, id="nothing to do"),
        pytest.param("client_outdated", Health.DEGRADED, id="outdated: upgrade"),
    ],
)
def test_a_session_that_waits_for_its_time_shows_it_with_and_without_a_worker(code, health):
    assert judge_health(dropped(code), POLICY, NOW).health is health
    record = SessionRecord(S.DISCONNECTED, WALL - 60, reason=code, paired=True)
    waits = changed(without_worker(record=record), not_before=NOW + 3000)
    verdict = judge_health(waits, POLICY, NOW)
    assert (verdict.health, verdict.state, verdict.reason) == (health, S.DISCONNECTED, code)
    assert plan_actions(waits, verdict, POLICY, NOW) is None
    assert judge_health(changed(waits, wait_reason="network_down"), POLICY, NOW) == verdict
    due = judge_health(waits, POLICY, NOW + 3000)
    start = plan_actions(waits, due, POLICY, NOW + 3000)
    assert (due.reason, start.actions) == ("not_running", (ActionKind.START,))


def test_a_session_with_a_wait_of_its_own_does_not_wait_for_the_network():
    reason = "temporary_ban"
    waits = changed(dropped(reason), wait_reason="network_down", not_before=NOW + 100)
    found = judge_health(waits, POLICY, NOW)
    assert (found.state, found.reason) == (S.DISCONNECTED, reason)
    due = changed(waits, not_before=NOW)
    assert judge_health(due, POLICY, NOW).reason == "network_down"
    lost = changed(dropped("connection_lost"), wait_reason="network_down", not_before=NOW + 100)
    assert judge_health(lost, POLICY, NOW).reason == "network_down"


def test_a_session_that_waits_for_its_turn_says_so_and_starts_as_one_without_a_worker():
    waits = changed(without_worker(), turns_before=0)
    verdict = judge_health(waits, HealthPolicy(), NOW)
    assert (verdict.reason, verdict.sentence) == ("waits_turn", "its turn to start has not come")
    plain = judge_health(without_worker(), HealthPolicy(), NOW)
    assert (verdict.health, verdict.state) == (plain.health, plain.state)
    plan = plan_actions(waits, verdict, HealthPolicy(), NOW)
    assert (plan.actions, plan.reason) == ((ActionKind.START,), "its turn to start has come")
