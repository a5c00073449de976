"""An account that needs a passkey: no step, renewal or repair in an incident ends its pairing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import PHASES, ConnectionStatus, Health, SessionFiles, SessionRecord
from agent.core.reconcile import ActionKind, plan_actions, plan_asked
from agent.core.recovery.ladder import ENDING_STEPS, after_action, begin_repair, step_repair
from agent.core.recovery.repair import Consent, Ending, Goal, RecoveryKind
from agent.supervise.act import plan_step
from agent.supervise.record import find_drop
from tests.core.made import NOW, WALL, case_of, observations, said, seen, without_worker
from tests.core.test_recovery import (
    DAMAGED,
    KEYS,
    LOST,
    OLD_PROOF,
    SUSPECT,
    ZOMBIE,
    lives,
    policies,
    run,
)
from tests.sessions import Desired, changed

S = ConnectionStatus
HEALTH = HealthPolicy()
GUARDED = SessionRecord(paired=True, needs_passkey=True)
ENDS = {ActionKind.SET_ASIDE, ActionKind.LOGOUT, ActionKind.RENEW}
_ASKED_FOR = st.sampled_from([Goal.HEAL, Goal.RECOVER, Goal.WORKING_QR])
_sick = st.sampled_from([ZOMBIE, DAMAGED, KEYS, LOST, SUSPECT, OLD_PROOF])


def guarded(observation, **record):
    record = replace(observation.record, paired=True, needs_passkey=True, **record)
    return changed(observation, record=record, desired=Desired(True))


@given(
    st.lists(_sick | observations, min_size=1, max_size=3), _ASKED_FOR, _ASKED_FOR, lives, policies
)
def test_no_step_of_a_repair_ends_such_a_pairing(world, goal, joined, life, policy):
    repair = begin_repair(judge_health(guarded(world[0]), HEALTH, NOW), goal, WALL)
    wall = WALL
    for number in range(300):
        around = life[number % len(life)]
        observation = guarded(world[number // 20 % len(world)])
        repair, decision = step_repair(case_of(observation, around, policy, wall), repair)
        assert decision.kind not in ENDING_STEPS
        if repair.over:
            return
        if decision.kind is RecoveryKind.WAIT:
            wall = max(wall, decision.not_before_wall)
        else:
            for remote in (False, True):
                assert ENDS.isdisjoint(plan_step(decision, repair, remote=remote).actions)
            repair = after_action(repair, decision.kind, True, policy, wall, backup="kept")
        if number == 3:
            repair = repair.join(joined)
        wall += 1


@given(observations, st.booleans(), st.sampled_from(["", "it leaks"]))
def test_no_plan_of_a_pass_ends_such_a_pairing(observation, start_asked, restart_for):
    observation = guarded(observation, start_asked=start_asked)
    verdict = judge_health(observation, HEALTH, NOW)
    asked = plan_asked(observation, verdict, restart_for=restart_for)
    for plan in (asked, plan_actions(observation, verdict, HEALTH, NOW)):
        assert plan is None or ENDS.isdisjoint(plan.actions)


@pytest.mark.parametrize(
    ("record", "files", "claimed", "is_one"),
    [
        (GUARDED, SessionFiles.WHOLE, False, True),
        (replace(GUARDED, reason="logout"), SessionFiles.UNPAIRED, False, True),
        (replace(GUARDED, paired=False), SessionFiles.WHOLE, False, True),
        (replace(GUARDED, paired=False), SessionFiles.UNPAIRED, True, True),
        (replace(GUARDED, paired=False), SessionFiles.UNPAIRED, False, False),
        (SessionRecord(paired=True), SessionFiles.WHOLE, True, False),
    ],
)
def test_pairings_that_may_need_a_passkey(record, files, claimed, is_one):
    claim = said(S.LOADING, paired=claimed)
    assert seen(record=record, files=files, claim=claim).is_guarded is is_one


def test_after_a_logout_its_files_stay_and_its_sentence_asks_for_a_person():
    ended = seen(
        record=replace(GUARDED, reason="logout"), claim=said(S.DISCONNECTED, reason="logout")
    )
    verdict = judge_health(ended, HEALTH, NOW)
    assert (verdict.reason, verdict.state) == ("logout", S.AUTH_FAILURE)
    assert "passkey" in verdict.sentence
    assert plan_asked(ended, verdict, restart_for="") is None
    plan = plan_actions(ended, verdict, HEALTH, NOW)
    assert plan is not None
    assert plan.actions == (ActionKind.STOP,)


def test_a_suspect_of_that_kind_is_never_published_as_unpaired():
    for goal in (Goal.HEAL, Goal.RECOVER, Goal.WORKING_QR):
        done, repair = run(without_worker(files=SessionFiles.UNPAIRED, record=GUARDED), goal=goal)
        assert ENDING_STEPS.isdisjoint(done)
        assert repair.ending is Ending.GAVE_UP


def test_a_person_may_still_clean_it_up():
    done, _ = run(seen(record=GUARDED), goal=Goal.CLEANUP, consent=Consent.PASSKEY)
    assert RecoveryKind.CLEANUP in done


# --- suspicion: a pairing that was accepted and goes nowhere ---------------------------------


def pairing(ago: float):
    claim = said(S.INITIALIZING, phase="pairing", ago=ago)
    return seen(claim=claim, record=SessionRecord(), files=SessionFiles.UNPAIRED)


def test_a_pairing_that_goes_nowhere_is_suspected_after_its_time():
    limit = PHASES["pairing"].limit
    assert judge_health(pairing(limit - 1), HEALTH, NOW).reason == "starting"
    late = pairing(limit)
    verdict = judge_health(late, HEALTH, NOW)
    assert (verdict.health, verdict.reason) == (Health.STUCK, "passkey_suspected")
    assert verdict.state is S.QR_REQUIRED
    assert (find_drop(late, verdict) or pytest.fail("no drop")).code == "passkey_suspected"
