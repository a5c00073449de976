"""A pairing ends only by proof or by a person's word, for each origin of a repair."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import ConnectionStatus as S
from agent.core.model import Health, SessionFiles, SessionRecord
from agent.core.recovery.ladder import ENDING_STEPS, after_action, begin_repair, step_repair
from agent.core.recovery.pairing import (
    PAIRING_KEPT,
    WHATSAPP_AWAY,
    RecoveryPolicy,
    Unpair,
    may_person_end_it,
    may_repair_end_it,
)
from agent.core.recovery.repair import Consent, Ending, Goal, Ground, Kept, Proof, RecoveryKind
from tests.core.made import NOW, WALL, case_of, observations, said, seen, surroundings
from tests.core.test_recovery import (
    DAMAGED,
    KEYS,
    SUSPECT,
    ZOMBIE,
    circumstances,
    policies,
    run,
)
from tests.sessions import changed

K = RecoveryKind
HEALTH = HealthPolicy()
POLICY = RecoveryPolicy()
CALM = surroundings()
ALONE = surroundings(another_connected=False)
INCIDENT = surroundings(well=False)
ALIKE = surroundings(odd_one_out=False)
COPY, COPIED = surroundings(good_snapshot=True), surroundings(copied=True)
READS = surroundings(reads=True)
MISSING = changed(DAMAGED, files=SessionFiles.ABSENT)
BANNED = seen(claim=said(S.AUTH_FAILURE, reason="banned"))
MARKED = changed(ZOMBIE, record=SessionRecord(paired=True, needs_passkey=True))
NEVER = RecoveryPolicy(unpair=Unpair.NEVER)


def answer(observation, around, *, goal=Goal.WORKING_QR, consent=Consent.NONE, policy=POLICY):
    case = case_of(observation, around, policy)
    return may_repair_end_it(case, replace(begin_repair(case.verdict, goal, WALL), consent=consent))


@pytest.mark.parametrize(
    ("observation", "around", "policy", "code"),
    [
        pytest.param(ZOMBIE, ALONE, POLICY, WHATSAPP_AWAY, id="no other session is connected"),
        pytest.param(ZOMBIE, INCIDENT, POLICY, WHATSAPP_AWAY, id="many fail alike"),
        pytest.param(ZOMBIE, ALIKE, POLICY, PAIRING_KEPT, id="another one fails alike"),
        pytest.param(ZOMBIE, CALM, NEVER, PAIRING_KEPT, id="agent.toml keeps all pairings"),
        pytest.param(MARKED, CALM, POLICY, "confirm_passkey", id="it needs a passkey"),
        pytest.param(KEYS, READS, POLICY, PAIRING_KEPT, id="failing keys, and it reads messages"),
        pytest.param(DAMAGED, COPY, POLICY, PAIRING_KEPT, id="a copy that a person may put back"),
        pytest.param(DAMAGED, COPIED, POLICY, PAIRING_KEPT, id="another machine has a copy"),
        pytest.param(seen(), CALM, POLICY, PAIRING_KEPT, id="it is well"),
        pytest.param(BANNED, CALM, POLICY, PAIRING_KEPT, id="WhatsApp may lift its ban"),
    ],
)
def test_a_working_code_that_was_asked_for_ends_no_pairing_without_a_proof(
    observation, around, policy, code
):
    kept = answer(observation, around, policy=policy)
    assert kept.code == code
    assert "the pairing is kept" in kept.sentence
    done, _ = run(observation, goal=Goal.WORKING_QR, circumstances=around, policy=policy)
    assert ENDING_STEPS.isdisjoint(done)
    words = {Consent.PAIRING, Consent.PASSKEY} - ({Consent.PAIRING} if "passkey" in code else set())
    for word in words:
        assert answer(observation, around, policy=policy, consent=word) == Proof(Ground.PERSON)


@pytest.mark.parametrize(
    ("observation", "ground"),
    [
        (ZOMBIE, Ground.FAILS_ALONE),
        (KEYS, Ground.FAILS_ALONE),
        (DAMAGED, Ground.DAMAGED_FILES),
        (SUSPECT, Ground.LOST_STORE),
        (changed(ZOMBIE, record=SessionRecord(), files=SessionFiles.UNPAIRED, claim=None), None),
    ],
)
def test_with_its_proof_a_working_code_that_was_asked_for_is_shown(observation, ground):
    assert answer(observation, CALM) == Proof(ground or Ground.NO_PAIRING)


@given(observations, circumstances, policies, st.sampled_from([Goal.WORKING_QR, Goal.CLEANUP]))
def test_no_live_pairing_ends_unconfirmed_while_no_other_session_shows_that_whatsapp_answers(
    observation, around, policy, goal
):
    paired = changed(observation, record=replace(observation.record, paired=True, reason=""))
    paired = changed(paired, claim=None, wait_reason="")
    case = case_of(paired, around, policy)
    _, action = step_repair(case, replace(begin_repair(case.verdict, goal, WALL), backup="kept"))
    if action.kind in ENDING_STEPS:
        assert action.proof is not None
        assert around.well
        assert around.another_connected or case.verdict.health is not Health.STUCK
        assert policy.unpair is not Unpair.NEVER
        assert not paired.record.needs_passkey


def test_the_agent_gives_damaged_files_up_at_once_where_no_copy_of_them_is_left():
    done, _ = run(DAMAGED)
    assert done[:2] == [K.BACK_UP, K.CLEANUP]
    _, repair = run(DAMAGED, heals=lambda kind, done: seen() if kind is K.CLEANUP else None)
    assert repair.round == 1


@pytest.mark.parametrize("observation", [MISSING, changed(SUSPECT, files=SessionFiles.ABSENT)])
def test_files_that_are_not_there_may_come_back_and_no_round_gives_them_up(observation):
    for around in (CALM, COPY):
        done, repair = run(observation, circumstances=around)
        assert ENDING_STEPS.isdisjoint(done)
        assert repair.ending is Ending.GAVE_UP
        for goal in (Goal.HEAL, Goal.WORKING_QR):
            kept = answer(observation, around, goal=goal)
            assert isinstance(kept, Kept)
            assert "--yes" in kept.todo


def test_the_agent_gives_no_files_up_while_a_copy_of_them_is_good():
    done, repair = run(DAMAGED, circumstances=COPY)
    assert done == [], "nor are its keys rolled back"
    kept = answer(DAMAGED, COPY, goal=Goal.HEAL)
    assert isinstance(kept, Kept)
    assert "wa-agent restore sales" in kept.todo
    assert repair.ending is Ending.GAVE_UP


def test_while_its_server_may_still_connect_it_no_round_counts_and_no_pairing_ends():
    useless = ("reconnect", "restart", "logout_restart", "cleanup")
    closed = seen(claim=said(S.INITIALIZING, ago=99, paired=True, useless=useless))
    verdict = judge_health(closed, HEALTH, NOW)
    repair, wall = begin_repair(verdict, Goal.HEAL, WALL), WALL
    for _ in range(9):
        repair, decision = step_repair(case_of(closed, CALM, POLICY, wall), repair)
        assert (decision.kind, repair.round, repair.over) == (K.WAIT, 1, False)
        wall = decision.not_before_wall
    asked = replace(begin_repair(verdict, Goal.WORKING_QR, WALL), consent=Consent.PAIRING)
    assert step_repair(case_of(closed, CALM), asked)[1].kind is K.BACK_UP


def test_files_that_are_whole_once_the_worker_has_stopped_are_no_damaged_files():
    proof = Proof(Ground.DAMAGED_FILES)
    assert proof.stands(SessionFiles.DAMAGED)
    assert not proof.stands(SessionFiles.WHOLE)
    assert Proof(Ground.PERSON).stands(SessionFiles.WHOLE)


def test_what_a_person_confirmed_holds_for_one_round():
    """Afterwards it may be another pairing that would end."""
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.RECOVER, WALL)
    repair = repair.join(Goal.WORKING_QR, Consent.PAIRING)
    assert repair.join(Goal.CLEANUP).consent is Consent.PAIRING
    wall, rounds = WALL, []
    hangs = changed(ZOMBIE, record=SessionRecord(), files=SessionFiles.UNPAIRED, claim=None)
    while not repair.over:
        repair, action = step_repair(case_of(hangs, CALM, POLICY, wall), repair)
        rounds.append((repair.round, repair.consent))
        wall = max(wall + 1, action.not_before_wall)
        if action.kind is not K.WAIT:
            repair = after_action(repair, action.kind, True, POLICY, wall, backup="kept")
    assert set(rounds) == {(1, Consent.PAIRING)}


def test_a_pairing_made_since_a_repair_ended_the_last_one_is_another_one():
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    case = case_of(ZOMBIE, ALONE)
    assert isinstance(may_repair_end_it(case, replace(repair, unpaired=True)), Kept)


@given(observations)
def test_an_order_that_ends_a_pairing_needs_a_persons_word(observation):
    paired = changed(observation, record=replace(observation.record, paired=True, reason=""))
    paired = changed(paired, claim=None)
    assert isinstance(may_person_end_it(paired, Consent.NONE), Kept)
    marked = paired.record.needs_passkey
    assert isinstance(may_person_end_it(paired, Consent.PAIRING), Kept if marked else Proof)
    assert may_person_end_it(paired, Consent.PASSKEY) == Proof(Ground.PERSON)
