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
from tests.core.made import NOW, OFF, WALL, observations, said, seen, without_worker
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


VERDICTS = {
    "connected and answers": (seen(), "healthy CONNECTED"),
    "disabled but runs": (seen(desired=OFF), "disconnected DISCONNECTED disabled"),
    "stopped by hand": (
        without_worker(desired=Desired(True, Override.STOPPED)),
        "disconnected DISCONNECTED stopped",
    ),
    "masked": (without_worker(masked=True), "disconnected DISCONNECTED masked"),
    "should run, does not": (without_worker(), "not_found RECONNECTING not_running"),
    "over its burst limit": (
        without_worker(UnitState.FAILED, result="signal"),
        "degraded RECONNECTING worker_failed",
    ),
    "its lease is over": (
        without_worker(UnitState.FAILED, exit_status=77),
        "degraded RECONNECTING no_lease",
    ),
    "configuration error": (
        without_worker(UnitState.FAILED, exit_status=78),
        "disconnected DISCONNECTED misconfigured",
    ),
    "attempts used up": (
        without_worker(UnitState.FAILED, record=SessionRecord(paired=True, attempts=20)),
        "degraded DISCONNECTED attempts_used_up",
    ),
    "damaged files": (
        without_worker(files=SessionFiles.DAMAGED),
        "corrupted AUTH_FAILURE session_damaged",
    ),
    "paired, and the folder is gone": (
        without_worker(files=SessionFiles.ABSENT),
        "corrupted AUTH_FAILURE session_missing",
    ),
    "paired, and the store is empty": (
        without_worker(files=SessionFiles.UNPAIRED),
        "corrupted AUTH_FAILURE unpaired_suspect",
    ),
    "empty store after a logout is no suspect": (
        without_worker(
            files=SessionFiles.UNPAIRED, record=SessionRecord(paired=True, reason="logout")
        ),
        "disconnected AUTH_FAILURE logout",
    ),
    "stopping": (without_worker(UnitState.DEACTIVATING), "disconnected RECONNECTING stopping"),
    "process never ready": (
        without_worker(UnitState.ACTIVATING),
        "stuck INITIALIZING phase_process",
    ),
    "worker takes no connection": (
        seen(claim=None, probe=None, linked_since=None),
        "stuck INITIALIZING phase_process",
    ),
    "worker says nothing for 15 s": (
        seen(claim=None, probe=None, linked_since=NOW - 15),
        "degraded INITIALIZING phase_process",
    ),
    "just attached": (
        seen(claim=None, probe=None, linked_since=NOW - 3),
        "disconnected INITIALIZING starting",
    ),
    "two failed pings": (
        seen(probe=ProbeFact(False, NOW, 10, 2)),
        "degraded CONNECTED ping_failed",
    ),
    "three failed pings make a zombie": (
        seen(probe=ProbeFact(False, NOW, 10, 3)),
        "stuck RECONNECTING zombie",
    ),
    "slow": (seen(probe=ProbeFact(True, NOW, 6.0)), "degraded CONNECTED slow"),
    "proof older than its limit is not CONNECTED": (
        seen(claim=said(proof_age=91)),
        "degraded RECONNECTING proof_old",
    ),
    "a page that changed": (
        seen(claim=said(S.INITIALIZING, phase="injected", reason="injection_failed", ago=999)),
        "stuck INITIALIZING injection_failed",
    ),
    "no proof": (seen(claim=said(proof_age=181)), "stuck RECONNECTING proof_old"),
    "says connected, not proved yet": (
        seen(claim=said(proof_age=None, ago=5)),
        "disconnected LOADING starting",
    ),
    "never proved": (seen(claim=said(proof_age=None, ago=31)), "degraded LOADING not_proved"),
    "phase overdue": (
        seen(claim=said(S.LOADING, phase="loaded", ago=60)),
        "stuck LOADING phase_loaded",
    ),
    "30 s in a state that should pass": (
        seen(claim=said(S.LOADING, ago=30)),
        "stuck LOADING state_stuck",
    ),
    "the engine reconnects by itself": (
        seen(claim=said(S.RECONNECTING, ago=100)),
        "disconnected RECONNECTING starting",
    ),
    "waits for a scan": (
        seen(claim=said(S.QR_REQUIRED), record=NEW),
        "disconnected QR_REQUIRED waiting_for_scan",
    ),
    "paired, and shows a QR": (
        seen(claim=said(S.QR_REQUIRED)),
        "corrupted AUTH_FAILURE unpaired_suspect",
    ),
    "its worker found no pairing in its store": (
        seen(claim=said(S.AUTH_FAILURE, reason="unpaired_suspect")),
        "corrupted AUTH_FAILURE unpaired_suspect",
    ),
    "its worker found no pairing, and a logout is known": (
        seen(
            claim=said(S.AUTH_FAILURE, reason="unpaired_suspect"),
            record=SessionRecord(paired=True, reason="logout"),
        ),
        "disconnected AUTH_FAILURE logout",
    ),
    "QR after a logout": (
        seen(claim=said(S.QR_REQUIRED, reason="logout")),
        "disconnected QR_REQUIRED waiting_for_scan",
    ),
    "connection lost": (dropped("connection_lost"), "degraded RECONNECTING connection_lost"),
    "second conflict": (
        dropped("conflict", strikes=2),
        "degraded DISCONNECTED conflict_foreign_owner",
    ),
    "banned": (dropped("banned"), "disconnected AUTH_FAILURE banned"),
    "the worst signal decides": (
        seen(signals=(LEAK, KEYS)),
        "corrupted CONNECTED crypto_corrupted",
    ),
    "a signal does not hide a zombie": (
        seen(signals=(LEAK,), probe=ProbeFact(False, NOW, 10, 3)),
        "stuck RECONNECTING zombie",
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case):
    observation, told = VERDICTS[case]
    verdict = judge_health(observation, POLICY, NOW)
    assert f"{verdict.health.value} {verdict.state.value} {verdict.reason}".strip() == told


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
        assert NOW - observation.claim.proved_at() <= POLICY.proof_limit


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
    assert judge_health(changed(waits, not_before=NOW), POLICY, NOW).reason == "network_down"
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
