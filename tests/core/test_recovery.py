from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    ConnectionStatus,
    Health,
    Instance,
    InstanceId,
    ProbeFact,
    SessionFiles,
    SessionRecord,
    Signal,
    UnitState,
)
from agent.core.reconcile import ActionKind, plan_actions
from agent.core.recovery.ladder import (
    DESTRUCTIVE,
    ENDING_STEPS,
    MOST_ACTS,
    after_action,
    begin_repair,
    needs_repair,
    step_repair,
    wants_repair,
)
from agent.core.recovery.pairing import RecoveryPolicy, Unpair
from agent.core.recovery.repair import Consent, Ending, Goal, RecoveryKind, Repair, Stage, Trouble
from tests.core.made import (
    NOW,
    OFF,
    WALL,
    case_of,
    observations,
    said,
    seen,
    surroundings,
    without_worker,
)
from tests.sessions import Desired, changed

K = RecoveryKind
S = ConnectionStatus
HEALTH = HealthPolicy()
POLICY = RecoveryPolicy()
ZOMBIE = seen(probe=ProbeFact(False, NOW, 10, 3))
OLD_PROOF = seen(claim=said(proof_age=100.0))
DAMAGED = without_worker(files=SessionFiles.DAMAGED)
SUSPECT = seen(claim=said(S.QR_REQUIRED))
LOST = without_worker(files=SessionFiles.UNPAIRED)
TWICE = SessionRecord(reason="temporary_ban", strikes=2, not_before_wall=WALL + 60, paired=True)
THERE = Instance(InstanceId("sales"), "whaticket", True, {"backend": "desk"})
KEYS = seen(signals=(Signal("crypto_corrupted", Health.CORRUPTED, "many peers"),))
ONE_PEER = seen(signals=(Signal("crypto_peer", Health.DEGRADED, "one peer"),))
SNAPSHOT = surroundings(good_snapshot=True, may_roll_back=True)
PEERS = surroundings(peers=("491511",))
ACTS = set(K) - {K.NONE, K.WAIT}


def saved(repair):
    """As the next agent reads it in the session's record."""
    return msgspec.json.decode(msgspec.json.encode(repair), type=Repair)


def consent_of(goal):
    """A clean-up is confirmed by the person who asks for it."""
    return Consent.PAIRING if goal is Goal.CLEANUP else Consent.NONE


def run(
    observation,
    *,
    goal=Goal.HEAL,
    consent=None,
    circumstances=None,
    policy=POLICY,
    works=lambda kind: True,
    heals=lambda kind, done: None,
    wall=WALL,
):
    """Play a repair to its end: what was done, and how it ended.

    `works`: whether a step can be carried out; `heals`: the observation after a step, if new.
    """
    circumstances, first = circumstances or surroundings(), observation
    consent = consent_of(goal) if consent is None else consent
    repair = replace(
        begin_repair(judge_health(observation, HEALTH, NOW), goal, wall), consent=consent
    )
    done = []
    for _ in range(2000):
        case = case_of(observation, circumstances, policy, wall)
        repair, action = step_repair(case, repair)
        assert saved(repair) == repair
        if repair.over:
            return done, repair
        if action.kind is K.WAIT:
            assert wall < action.not_before_wall
            wall = action.not_before_wall
            plan = plan_actions(changed(observation, repair=repair), case.verdict, HEALTH, NOW)
            if plan is not None and plan.actions == (ActionKind.STOP,):
                observation = without_worker(files=observation.folder.files)
            continue
        done.append(action.kind)
        wall += 1
        ok = works(action.kind)
        repair = after_action(repair, action.kind, ok, policy, wall, backup="kept" if ok else "")
        if ok and (better := heals(action.kind, done)):
            observation = better
        elif ok and action.kind in (K.RESTART, K.RESTORE) and first.unit.runs:
            observation = first
    raise AssertionError(f"no end after {done}")


def once(steps):
    """Steps without their repetitions."""
    return [step for at, step in enumerate(steps) if at == 0 or steps[at - 1] is not step]


@pytest.mark.parametrize(
    ("observation", "options", "steps", "ending"),
    [
        pytest.param(
            ZOMBIE,
            {"policy": RecoveryPolicy(unpair=Unpair.NEVER)},
            [K.RESTART] * 3,
            Ending.GAVE_UP,
            id="zombie that nothing heals, unpair never",
        ),
        pytest.param(
            ZOMBIE,
            {},
            [K.RESTART] * 3 + [K.BACK_UP, K.CLEANUP],
            Ending.GAVE_UP,
            id="a live pairing goes last",
        ),
        pytest.param(
            ZOMBIE,
            {"policy": RecoveryPolicy(unpair=Unpair.EARLY, rounds=1)},
            [K.RESTART, K.BACK_UP, K.CLEANUP],
            Ending.GAVE_UP,
            id="unpair early goes on to cleanup in the first round",
        ),
        pytest.param(
            ZOMBIE,
            {"circumstances": SNAPSHOT, "policy": RecoveryPolicy(unpair=Unpair.NEVER)},
            [K.RESTART] * 3 + [K.BACK_UP, K.RESTORE],
            Ending.GAVE_UP,
            id="what is only stuck is rolled back last",
        ),
        pytest.param(
            ZOMBIE,
            {"circumstances": surroundings(can_log_out=True)},
            [K.RESTART, K.BACK_UP, K.LOGOUT_RESTART, K.CLEANUP],
            Ending.GAVE_UP,
            id="a remote engine logs out before it is deleted",
        ),
        pytest.param(
            OLD_PROOF,
            {"policy": RecoveryPolicy(rounds=1, unpair=Unpair.NEVER)},
            [K.RECONNECT, K.RESTART],
            Ending.GAVE_UP,
            id="what still answers is connected again before it is restarted",
        ),
        pytest.param(
            KEYS,
            {"circumstances": PEERS, "policy": RecoveryPolicy(unpair=Unpair.NEVER, rounds=1)},
            [K.REGENERATE_KEYS, K.RECONNECT, K.RESTART],
            Ending.GAVE_UP,
            id="corrupted keys",
        ),
        pytest.param(
            KEYS,
            {"circumstances": surroundings(reads=True)},
            [K.RECONNECT, K.RESTART] * 3,
            Ending.GAVE_UP,
            id="a session that reads some messages keeps its pairing",
        ),
        pytest.param(
            KEYS,
            {"circumstances": surroundings(reads=True), "goal": Goal.WORKING_QR},
            [K.RECONNECT, K.RESTART],
            Ending.GAVE_UP,
            id="a session that reads some messages keeps its pairing when a code is asked for",
        ),
        pytest.param(
            KEYS,
            {},
            [*[K.RECONNECT, K.RESTART] * 3, K.BACK_UP, K.CLEANUP],
            Ending.GAVE_UP,
            id="keys that read nothing in any round",
        ),
        pytest.param(
            ONE_PEER,
            {"circumstances": PEERS, "policy": RecoveryPolicy(rounds=1)},
            [K.REGENERATE_KEYS, K.RECONNECT, K.RESTART],
            Ending.RECOVERED,
            id="one peer out of step begins with its keys",
        ),
        pytest.param(
            DAMAGED,
            {"circumstances": SNAPSHOT, "policy": RecoveryPolicy(unpair=Unpair.NEVER, rounds=1)},
            [K.BACK_UP, K.RESTORE],
            Ending.GAVE_UP,
            id="damaged files are backed up and restored, never just started",
        ),
        pytest.param(
            SUSPECT,
            {"circumstances": SNAPSHOT},
            [K.RESTART, K.BACK_UP, K.RESTORE],
            Ending.GAVE_UP,
            id="suspect over a whole store",
        ),
        pytest.param(SUSPECT, {}, [K.RESTART], Ending.GAVE_UP, id="suspect without a snapshot"),
        pytest.param(
            LOST,
            {"circumstances": SNAPSHOT},
            [K.BACK_UP, K.RESTORE],
            Ending.GAVE_UP,
            id="an empty store is never started on",
        ),
        pytest.param(LOST, {}, [], Ending.GAVE_UP, id="an empty store without a snapshot"),
        pytest.param(ZOMBIE, {"goal": Goal.RECOVER}, [K.RESTART], Ending.GAVE_UP, id="asked"),
        pytest.param(
            ZOMBIE,
            {"goal": Goal.WORKING_QR},
            [K.RESTART, K.BACK_UP, K.CLEANUP],
            Ending.GAVE_UP,
            id="a person asks for a QR: one round down to a new pairing",
        ),
        pytest.param(
            seen(),
            {"goal": Goal.CLEANUP},
            [K.BACK_UP, K.CLEANUP],
            Ending.CLEANED,
            id="a person asks to begin afresh",
        ),
    ],
)
def test_ladder(observation, options, steps, ending):
    # One peer's signal fades: the window has passed when the last step was tried.
    heals = (
        (lambda kind, done: seen() if done.count(K.RESTART) == 3 else None)
        if (observation is ONE_PEER)
        else (lambda kind, done: None)
    )
    done, repair = run(observation, **options, heals=heals)
    assert once(done) == once(steps)
    assert repair.ending is ending


def test_every_step_is_tried_three_times_with_doubling_delays():
    repair = begin_repair(judge_health(OLD_PROOF, HEALTH, NOW), Goal.HEAL, WALL)
    wall, begun = WALL, []
    while len(begun) < 4:
        repair, action = step_repair(case_of(OLD_PROOF, wall=wall), repair)
        if action.kind is K.WAIT:
            wall = action.not_before_wall
        else:
            begun.append((action.kind, wall - WALL))
            repair = after_action(repair, action.kind, False, POLICY, wall)
    assert begun == [(K.RECONNECT, 0), (K.RECONNECT, 2), (K.RECONNECT, 6), (K.RESTART, 14)]


def test_a_worker_that_hangs_is_replaced_at_once():
    """However its repair began: what was milder is not waited for any more."""
    repair = begin_repair(judge_health(OLD_PROOF, HEALTH, NOW), Goal.HEAL, WALL)
    repair, action = step_repair(case_of(OLD_PROOF), repair)
    assert action.kind is K.RECONNECT
    repair = after_action(repair, action.kind, True, POLICY, WALL)
    wall = WALL + 1
    while action.kind is not K.RESTART:
        repair, action = step_repair(case_of(ZOMBIE, wall=wall), repair)
        wall = max(wall, action.not_before_wall)
    assert wall - WALL < 10


def test_rounds_are_apart_in_time():
    times = []
    run(ZOMBIE, works=lambda kind: times.append(kind) or False)
    assert times.count(K.RESTART) == 9
    _, repair = run(ZOMBIE, policy=RecoveryPolicy(unpair=Unpair.NEVER))
    assert repair.ended_wall - repair.started_wall >= 2 * POLICY.round_pause


def test_a_start_under_way_is_waited_for():
    starting = seen(claim=said(S.LOADING, phase="sync", ago=1), probe=None)
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    repair, action = step_repair(case_of(ZOMBIE), repair)
    repair = after_action(repair, action.kind, True, POLICY, WALL)
    repair, action = step_repair(case_of(starting, wall=WALL + 300), repair)
    assert action.kind is K.WAIT
    repair, action = step_repair(case_of(starting, wall=WALL + POLICY.start_limit), repair)
    repair, action = step_repair(case_of(starting, wall=action.not_before_wall), repair)
    assert (action.kind, repair.tries) == (K.RESTART, 2)


def test_a_canary_is_repaired_while_all_is_not_well_and_keeps_its_pairing():
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    repair = replace(repair, round=POLICY.rounds, backup="kept")
    around = surroundings(well=False, canary=True)
    repair, action = step_repair(case_of(ZOMBIE, around), repair)
    assert action.kind is K.RESTART
    repair = replace(repair, step=K.RESTART, tries=3, stage=Stage.DUE)
    waiting, action = step_repair(case_of(ZOMBIE, around), repair)
    assert (action.kind, waiting.round) == (K.WAIT, POLICY.rounds)


def test_a_turn_in_an_incident_makes_the_next_try_due():
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    waiting = replace(repair, not_before_wall=WALL + 1800)
    assert waiting.hurry(paired=True).not_before_wall == 0
    tried = replace(waiting, step=K.RESTART, tries=POLICY.tries)
    case = case_of(ZOMBIE, surroundings(well=False, canary=True))
    hurried = tried.hurry(paired=True)
    assert step_repair(case, hurried)[1].kind is K.RESTART, "the others wait for it"
    assert tried.hurry(paired=False).tries == POLICY.tries, "a clean-up is its next step"
    logged_out = replace(waiting, step=K.LOGOUT_RESTART, tries=1)
    assert logged_out.hurry(paired=True).step is K.LOGOUT_RESTART, "what it may have ended is known"
    acting = replace(waiting, stage=Stage.ACTING)
    assert acting.hurry(paired=True) == acting


def test_a_new_kind_of_trouble_gets_its_own_ladder():
    done, repair = run(
        ZOMBIE,
        circumstances=SNAPSHOT,
        heals=lambda kind, done: {K.RESTART: DAMAGED, K.RESTORE: seen()}.get(kind),
    )
    assert once(done) == [K.RESTART, K.BACK_UP, K.RESTORE]
    assert repair.ending is Ending.RECOVERED


def test_a_suspect_is_stopped_and_looked_at_before_anything_is_tried():
    verdict = judge_health(SUSPECT, HEALTH, NOW)
    repair, action = step_repair(case_of(SUSPECT, SNAPSHOT), begin_repair(verdict, Goal.HEAL, WALL))
    assert action.kind is K.WAIT
    assert "or its server if it is on one" in verdict.sentence
    stop = plan_actions(changed(SUSPECT, repair=repair), verdict, HEALTH, NOW)
    assert stop.actions == (ActionKind.STOP,)
    for files, step in ((SessionFiles.WHOLE, K.RESTART), (SessionFiles.UNPAIRED, K.BACK_UP)):
        stopped = changed(without_worker(files=files), repair=repair)
        case = case_of(stopped, SNAPSHOT)
        assert step_repair(case, repair)[1].kind is step
        assert plan_actions(stopped, case.verdict, HEALTH, NOW) is None


def test_new_keys_cut_short_are_made_as_soon_as_it_is_known_again_who_fails():
    """After a restart of the agent no session has been counted yet, and a connect comes first."""
    one_peer = replace(ONE_PEER, instance=THERE)
    repair = begin_repair(judge_health(one_peer, HEALTH, NOW), Goal.HEAL, WALL)
    repair, action = step_repair(case_of(one_peer, PEERS), repair)
    assert action.kind is K.REGENERATE_KEYS
    repair = repair.resume(WALL)
    down = seen(claim=said(S.DISCONNECTED, reason="connection_lost"))
    repair, action = step_repair(case_of(replace(down, instance=THERE)), repair)
    assert action.kind is K.RECONNECT
    repair = after_action(repair, action.kind, True, POLICY, WALL)
    for kind in (K.REGENERATE_KEYS, K.REGENERATE_KEYS, K.REGENERATE_KEYS, K.RECONNECT):
        later = repair.stage_wall + POLICY.settle_keys + 99
        repair, action = step_repair(case_of(one_peer, PEERS, POLICY, later), repair)
        if action.kind is K.WAIT:
            later = action.not_before_wall
            repair, action = step_repair(case_of(one_peer, PEERS, POLICY, later), repair)
        assert action.kind is kind
        repair = after_action(repair, action.kind, True, POLICY, later)


@pytest.mark.parametrize("code", ["nothing_to_remove", "not_supported", "files"])
def test_a_step_that_is_refused_for_good_is_not_tried_again_in_its_round(code):
    one_peer, at = replace(ONE_PEER, instance=THERE), WALL
    repair = begin_repair(judge_health(one_peer, HEALTH, NOW), Goal.HEAL, WALL)
    for refusal, kind in (
        ("redis", K.REGENERATE_KEYS),
        (code, K.REGENERATE_KEYS),
        ("", K.RECONNECT),
    ):
        repair, action = step_repair(case_of(one_peer, PEERS, POLICY, at), repair)
        assert action.kind is kind
        repair = after_action(repair, kind, False, POLICY, at, refusal=refusal)
        at = repair.not_before_wall


@pytest.mark.parametrize(
    ("observation", "ending"),
    [
        pytest.param(seen(), Ending.NO_STEP, id="well again"),
        pytest.param(changed(ZOMBIE, desired=OFF), Ending.NOT_WANTED, id="disabled meanwhile"),
        *(
            (seen(claim=said(S.DISCONNECTED, reason=code), record=TWICE), Ending.NEEDS_PERSON)
            for code in ("banned", "temporary_ban", "client_outdated")
        ),
    ],
)
def test_a_repair_ends_by_itself(observation, ending):
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    repair, action = step_repair(case_of(observation), repair)
    assert repair.ending is ending
    assert action.kind is K.NONE


def test_a_clean_up_in_a_ban_for_a_time_ends_at_once_and_is_not_done_later():
    banned = seen(claim=said(S.DISCONNECTED, reason="temporary_ban"), record=TWICE)
    done, repair = run(banned, goal=Goal.CLEANUP)
    assert (done, repair.ending) == ([], Ending.NEEDS_PERSON)


@pytest.mark.parametrize(("code", "word"), [("logout", Consent.NONE), ("banned", Consent.PAIRING)])
def test_a_dead_pairing_is_not_logged_in_with_even_when_a_person_asks_for_a_qr(code, word):
    done, _ = run(seen(claim=said(S.DISCONNECTED, reason=code)), goal=Goal.WORKING_QR, consent=word)
    assert done == [K.BACK_UP, K.CLEANUP]


def test_keys_count_as_healed_when_no_new_trouble_shows_for_a_while():
    repair = begin_repair(judge_health(KEYS, HEALTH, NOW), Goal.HEAL, WALL)
    repair, action = step_repair(case_of(KEYS, PEERS), repair)
    repair = after_action(repair, action.kind, True, POLICY, WALL)
    repair, action = step_repair(case_of(seen(), PEERS, POLICY, WALL + 60), repair)
    assert (action.kind, action.not_before_wall) == (K.WAIT, WALL + POLICY.settle_keys)
    again, action = step_repair(case_of(KEYS, PEERS, POLICY, WALL + 61), repair)
    assert again.stage is Stage.DUE
    repair, action = step_repair(case_of(seen(), PEERS, POLICY, WALL + 120), repair)
    assert repair.ending is Ending.RECOVERED


def test_a_lost_ping_after_a_step_is_no_success_yet():
    repair = replace(
        begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL),
        step=K.RECONNECT,
        tries=1,
        stage=Stage.SETTLING,
        stage_wall=WALL - 10,
    )
    after, action = step_repair(case_of(seen(probe=ProbeFact(False, NOW, 10, 1))), repair)
    assert (after.over, action.kind) == (False, K.WAIT)
    after, _ = step_repair(case_of(seen()), repair)
    assert after.ending is Ending.NO_STEP


@pytest.mark.parametrize(
    ("found", "goal"),
    [
        pytest.param(without_worker(), Goal.HEAL, id="its worker does not run yet"),
        pytest.param(seen(claim=said(S.INITIALIZING, ago=1)), Goal.HEAL, id="it starts"),
        pytest.param(seen(claim=said(S.LOADING, ago=1)), Goal.HEAL, id="it syncs"),
        pytest.param(
            seen(claim=said(S.LOADING, ago=1)), Goal.RECOVER, id="it syncs, as a person asked"
        ),
    ],
)
def test_a_repair_whose_step_was_cut_off_waits_for_a_session_that_comes_up(found, goal):
    policy = RecoveryPolicy(rounds=1, unpair=Unpair.NEVER)
    cut = replace(
        begin_repair(judge_health(DAMAGED, HEALTH, NOW), goal, WALL - 60),
        step=K.RESTORE,
        tries=1,
        stage=Stage.ACTING,
        stage_wall=WALL - 50,
        backup="b1",
    )
    after, action = step_repair(case_of(found, SNAPSHOT, policy, WALL), cut.resume(WALL))
    assert (action.kind, after.stage) == (K.WAIT, Stage.SETTLING)
    again, action = step_repair(case_of(found, SNAPSHOT, policy, WALL + 2), after)
    assert (action.kind, again) == (K.WAIT, after)
    after, _ = step_repair(case_of(seen(), SNAPSHOT, policy, WALL + 5), after)
    assert after.ending is Ending.RECOVERED


def test_answers_of_ensure_healthy():
    _, untouched = run(seen(), goal=Goal.WORKING_QR)
    assert untouched.answer == {"healthy": False, "cleaned": False, "recovered": False}, "no step"
    _, healed = run(ZOMBIE, heals=lambda kind, done: seen())
    assert healed.answer == {"healthy": True, "cleaned": False, "recovered": True}
    _, afresh = run(seen(), goal=Goal.CLEANUP)
    assert afresh.answer == {"healthy": True, "cleaned": True, "recovered": False}
    _, failed = run(ZOMBIE, goal=Goal.RECOVER)
    assert failed.answer == {"healthy": False, "cleaned": False, "recovered": False}


def test_a_second_request_joins_and_widens():
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    waiting = replace(repair, not_before_wall=WALL + 1000)
    joined = waiting.join(Goal.WORKING_QR)
    assert (joined.goal, joined.not_before_wall) == (Goal.WORKING_QR, 0)
    assert joined.join(Goal.RECOVER).goal is Goal.WORKING_QR
    assert waiting.join(Goal.HEAL).not_before_wall == WALL + 1000


def test_a_step_cut_off_by_the_agents_end_is_done_again_but_not_for_ever():
    repair = begin_repair(judge_health(OLD_PROOF, HEALTH, NOW), Goal.HEAL, WALL)
    kinds = []
    for _ in range(7):
        repair, action = step_repair(case_of(OLD_PROOF), repair)
        kinds.append(action.kind)
        repair = saved(repair).resume(WALL)
    assert kinds == [K.RECONNECT] * 6 + [K.RESTART]
    assert repair.resume(WALL) == replace(repair)


def ended(how):
    return Repair(Trouble.CONNECTION, "zombie", Goal.HEAL, WALL, ending=how, ended_wall=WALL)


@pytest.mark.parametrize(
    ("last", "after", "wanted"),
    [
        pytest.param(None, 0, True, id="the first"),
        pytest.param(Ending.RECOVERED, 1, True, id="it broke again"),
        pytest.param(Ending.NOT_YET, 1, False, id="one is under way"),
        pytest.param(Ending.GAVE_UP, 3600, False, id="gave up an hour ago"),
        pytest.param(Ending.GAVE_UP, 21600, True, id="gave up long ago"),
        pytest.param(Ending.NEEDS_PERSON, 99999, False, id="waits for a person"),
    ],
)
def test_when_the_agent_begins_a_repair(last, after, wanted):
    before = None if last is None else ended(last)
    assert wants_repair(judge_health(ZOMBIE, HEALTH, NOW), before, POLICY, WALL + after) is wanted


def test_a_session_that_waited_for_a_person_and_was_well_since_is_repaired_again():
    waited = ended(Ending.NEEDS_PERSON)
    well, zombie = (judge_health(one, HEALTH, NOW) for one in (seen(), ZOMBIE))
    assert not wants_repair(zombie, waited.outlive(healthy=zombie.healthy), POLICY, WALL + 1)
    since = saved(waited.outlive(healthy=well.healthy))
    assert wants_repair(zombie, since.outlive(healthy=zombie.healthy), POLICY, WALL + 1)
    gave_up = replace(waited, ending=Ending.GAVE_UP).outlive(healthy=well.healthy)
    assert not wants_repair(zombie, gave_up, POLICY, WALL + 1), "it has its own time"


def test_a_session_whose_keys_still_fail_is_repaired_again_in_the_next_round():
    gave_up = replace(ended(Ending.GAVE_UP), trouble=Trouble.KEYS, reason="crypto_peer")
    verdict = judge_health(KEYS, HEALTH, NOW)
    assert not wants_repair(verdict, gave_up, POLICY, WALL + 599)
    assert wants_repair(verdict, gave_up, POLICY, WALL + 600)


def test_a_repair_that_was_asked_for_and_had_no_step_does_not_delay_the_agents_own():
    verdict = judge_health(ZOMBIE, HEALTH, NOW)
    asked = begin_repair(verdict, Goal.WORKING_QR, WALL)
    gave_up = replace(asked, ending=Ending.GAVE_UP, ended_wall=WALL)
    assert wants_repair(verdict, gave_up, POLICY, WALL + 1)
    assert not wants_repair(verdict, replace(gave_up, acts=1), POLICY, WALL + 1)


def test_a_repair_is_over_once_the_session_is_well_also_while_others_wait():
    """A backend's open circuit holds its sessions back for ten minutes."""
    repair = begin_repair(judge_health(ZOMBIE, HEALTH, NOW), Goal.HEAL, WALL)
    for wait in ("backend_circuit", "incident"):
        observation = seen(wait_reason=wait)
        assert judge_health(observation, HEALTH, NOW).healthy
        case = case_of(observation, surroundings(well=False), POLICY, WALL + 60)
        assert step_repair(case, repair)[0].ending is Ending.NO_STEP


def test_a_session_that_gave_up_in_an_incident_may_try_again_after_it():
    gave_up = ended(Ending.GAVE_UP)
    verdict = judge_health(ZOMBIE, HEALTH, NOW)
    assert wants_repair(verdict, gave_up, POLICY, WALL + 11, released_wall=WALL + 10)
    assert not wants_repair(verdict, gave_up, POLICY, WALL + 11, released_wall=WALL - 10)


def test_a_plain_drop_is_not_the_ladders():
    for code in ("connection_lost", "logout", "temporary_ban"):
        dropped = seen(claim=said(S.DISCONNECTED, reason=code))
        assert not needs_repair(judge_health(dropped, HEALTH, NOW))


# --- properties ------------------------------------------------------------------------------

circumstances = st.builds(
    surroundings,
    well=st.booleans(),
    odd_one_out=st.booleans(),
    another_connected=st.booleans(),
    canary=st.booleans(),
    can_log_out=st.booleans(),
    good_snapshot=st.booleans(),
    may_roll_back=st.booleans(),
    peers=st.sampled_from([(), ("4911",)]),
)
policies = st.builds(
    RecoveryPolicy,
    tries=st.integers(1, 4),
    rounds=st.integers(1, 4),
    unpair=st.sampled_from(Unpair),
)
worlds = st.lists(
    st.tuples(observations, circumstances, st.booleans(), st.floats(0, 4000)),
    min_size=1,
    max_size=8,
)


@given(observations, st.sampled_from(Goal), worlds, policies, st.sets(st.integers(0, 600)))
def test_the_ladder_ends_after_any_events_and_destroys_nothing_unsaved(
    first, goal, world, policy, kills
):
    repair = begin_repair(judge_health(first, HEALTH, NOW), goal, WALL)
    wall, acts, backed_up = WALL, 0, False
    for number in range(600):
        observation, around, ok, later = world[number % len(world)]
        observation = changed(observation, desired=Desired(True))
        case = case_of(observation, around, policy, wall)
        assert step_repair(case, repair) == step_repair(case, repair)
        before = repair
        repair, action = step_repair(case, repair)
        if repair.over:
            return
        backed_up = backed_up and repair.round == before.round
        if action.kind in ACTS:
            acts += 1
            if action.kind in DESTRUCTIVE:
                assert backed_up
            if action.kind in ENDING_STEPS and goal in (Goal.HEAL, Goal.RECOVER):
                nothing_to_lose = observation.no_pairing_to_lose
                assert around.well or before.unpaired or (around.canary and nothing_to_lose)
                assert repair.trouble is not Trouble.SUSPECT
            if number in kills:  # the agent died with the step half done
                repair = saved(repair).resume(wall)
                continue
            backed_up = backed_up or (action.kind is K.BACK_UP and ok)
            repair = after_action(
                repair, action.kind, ok, policy, wall, backup="kept" if ok else ""
            )
        wall += later
    assert acts <= MOST_ACTS


mostly = st.sampled_from([True] * 9 + [False])
lives = st.lists(
    st.builds(
        surroundings,
        well=mostly,
        odd_one_out=mostly,
        another_connected=mostly,
        can_log_out=st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@given(
    st.sampled_from([ZOMBIE, DAMAGED, KEYS]),
    st.sampled_from([Goal.HEAL, Goal.RECOVER]),
    lives,
    policies,
)
@settings(max_examples=400)
def test_the_agent_ends_a_live_pairing_after_calm_rounds_only(sick, goal, life, policy):
    repair = begin_repair(judge_health(sick, HEALTH, NOW), goal, WALL)
    wall, calm = WALL, True
    for number in range(600):
        around = life[number % len(life)]
        well_and_alone = around.well and around.odd_one_out
        repair, action = step_repair(case_of(sick, around, policy, wall), repair)
        calm = calm and well_and_alone
        if f"of {policy.rounds} in " in action.reason:
            calm = True  # a round begins, or one in bad weather is run again
        if repair.over:
            return
        if action.kind in ENDING_STEPS:
            assert goal is Goal.HEAL
            assert well_and_alone
            assert around.another_connected or sick is not ZOMBIE
            assert policy.unpair is not Unpair.NEVER
            last = (repair.round >= policy.rounds and calm) or sick is DAMAGED  # no copy of it
            assert policy.unpair is Unpair.EARLY or last
            return
        if action.kind is K.WAIT:
            wall = max(wall + 1, action.not_before_wall)
        else:
            repair = after_action(repair, action.kind, True, policy, wall, backup="kept")


@given(observations, st.sampled_from(["logout", "banned"]), circumstances)
def test_no_repair_of_its_own_touches_what_whatsapp_ended(observation, code, around):
    ended = changed(
        observation,
        desired=Desired(True),
        claim=said(S.DISCONNECTED, reason=code),
        probe=None,
        files=SessionFiles.WHOLE,
        unit=replace(observation.unit, state=UnitState.ACTIVE, masked=False),
        wait_reason="",
    )
    verdict = judge_health(ended, HEALTH, NOW)
    assert not needs_repair(verdict)
    for goal in (Goal.HEAL, Goal.RECOVER):
        repair, action = step_repair(case_of(ended, around), begin_repair(verdict, goal, WALL))
        assert (action.kind, repair.ending) == (K.NONE, Ending.NEEDS_PERSON)


@given(observations, circumstances, st.floats(0, 4 * WALL), st.floats(0, 4 * WALL))
def test_f51_a_clock_that_jumps_never_makes_a_repair_wait_longer_than_its_policy(
    observation, around, begun, now
):
    repair = begin_repair(judge_health(observation, HEALTH, NOW), Goal.HEAL, begun)
    repair, action = step_repair(case_of(observation, around, POLICY, begun), repair)
    if repair.stage is Stage.ACTING:
        repair = after_action(repair, action.kind, False, POLICY, begun)
    repair, action = step_repair(case_of(observation, around, POLICY, now), repair)
    if action.kind is K.WAIT:
        assert 0 < action.not_before_wall - now <= POLICY.round_pause + 1


def test_keys_of_a_server_have_a_step_between_reconnecting_and_unpairing_without_a_peer() -> None:
    """The engine reads the session's own records and takes out the damaged ones."""
    there = replace(KEYS, instance=replace(KEYS.instance, settings={"backend": "desk"}))
    policy = RecoveryPolicy(rounds=1)
    blind = surroundings(can_log_out=True)
    done, _ = run(there, circumstances=blind, policy=policy)
    assert K.REGENERATE_KEYS not in done
    done, _ = run(there, circumstances=replace(blind, finds_records=True), policy=policy)
    assert done.index(K.REGENERATE_KEYS) < done.index(K.LOGOUT_RESTART)


@pytest.mark.parametrize("goal", [Goal.RECOVER, Goal.WORKING_QR, Goal.CLEANUP])
def test_what_a_person_asked_for_is_not_done_after_an_outage(goal):
    """The session's server was away, and comes back an hour later with the session as it was."""
    well = seen(instance=THERE)
    verdict = judge_health(well, HEALTH, NOW)
    repair = replace(begin_repair(verdict, goal, WALL), consent=Consent.PAIRING)
    blinks = changed(well, signals=(Signal("unmeasured", Health.DEGRADED, "it may only blink"),))
    repair, action = step_repair(case_of(blinks, wall=WALL + 1), repair)
    assert (action.kind, repair.over) == (K.WAIT, False), "nothing tells that it is well"
    away = changed(well, wait_reason="backend_down")
    for _ in range(2):
        repair, action = step_repair(case_of(away, surroundings(well=False)), repair)
        assert (action.kind, repair.goal, repair.consent) == (K.WAIT, Goal.HEAL, Consent.NONE)
    repair, action = step_repair(case_of(well, wall=WALL + 3600), repair)
    assert (repair.ending, repair.acts) == (Ending.NO_STEP, 0)


def test_a_persons_word_that_waited_for_its_step_ends_with_the_agent():
    verdict = judge_health(ZOMBIE, HEALTH, NOW)
    waiting = replace(begin_repair(verdict, Goal.CLEANUP, WALL), consent=Consent.PAIRING)
    assert waiting.resume(WALL).consent is Consent.NONE
    cut = replace(waiting, stage=Stage.ACTING, step=K.CLEANUP)
    assert cut.resume(WALL).consent is Consent.PAIRING, "what was begun is ended"
    begun = replace(waiting, unpaired=True)
    assert begun.resume(WALL) == begun


def test_files_that_were_damaged_beside_others_wait_for_those_alone():
    verdict, alike = judge_health(DAMAGED, HEALTH, NOW), surroundings(odd_one_out=False)
    repair = begin_repair(verdict, Goal.HEAL, WALL)
    for wall in (WALL, WALL + 5):
        repair, action = step_repair(case_of(DAMAGED, alike, wall=wall), repair)
        assert (action.kind, repair.over) == (K.WAIT, False)
    repair, action = step_repair(case_of(DAMAGED, wall=WALL + 10), repair)
    assert action.kind is K.BACK_UP
