from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.breaker import Breaker
from agent.core.health import HealthPolicy, judge_health
from agent.core.model import Instance, Override, ProbeFact, SessionRecord, UnitState
from agent.core.reconcile import ActionKind, next_deadline, plan_actions
from agent.core.recovery.ladder import needs_repair
from agent.core.recovery.repair import Ending, Goal, Repair, Stage, Trouble
from agent.core.session import Wait
from agent.core.words import ConnectionStatus, InstanceId, SessionFiles
from tests.core.made import NOW, OFF, PAIRED, WALL, observations, said, seen, unit, without_worker
from tests.sessions import Desired, changed

POLICY = HealthPolicy()
S = ConnectionStatus
START, STOP = ActionKind.START, ActionKind.STOP
RESTART, CONNECT = ActionKind.RESTART, ActionKind.CONNECT
ELSEWHERE = Instance(InstanceId("desk"), "evolution", True, {"backend": "evo"})
ZOMBIE = ProbeFact(False, NOW, 10, 3)
OPEN = replace(PAIRED, breaker=Breaker(5, WALL - 599))
OFTEN = replace(PAIRED, attempts=20)
BANNED = replace(PAIRED, reason="temporary_ban", not_before_wall=WALL + 1)
HALF_OPEN = replace(PAIRED, breaker=Breaker(5, WALL - 600))


def ended(code, **more):
    return seen(claim=said(S.DISCONNECTED, reason=code), **more)


LOST, SHOWS_CODE = ended("connection_lost"), seen(claim=said(S.QR_REQUIRED))


def plan(observation, now=NOW):
    return kinds(plan_actions(observation, judge_health(observation, POLICY, now), POLICY, now))


def kinds(planned):
    return [] if planned is None else list(planned.actions)


@pytest.mark.parametrize(
    ("observation", "actions"),
    [
        pytest.param(seen(), [], id="well"),
        pytest.param(without_worker(), [START], id="should run"),
        pytest.param(without_worker(not_before=NOW + 1), [], id="its time has not come"),
        pytest.param(without_worker(job_pending=True), [], id="a job is under way"),
        pytest.param(without_worker(masked=True), [], id="masked"),
        pytest.param(without_worker(UnitState.FAILED), [START], id="over its burst limit"),
        pytest.param(without_worker(UnitState.FAILED, exit_status=78), [], id="exit 78"),
        pytest.param(without_worker(UnitState.DEACTIVATING), [], id="still stopping"),
        pytest.param(without_worker(files=SessionFiles.DAMAGED), [], id="damaged files"),
        pytest.param(without_worker(files=SessionFiles.UNPAIRED), [], id="suspect"),
        pytest.param(without_worker(desired=OFF), [], id="disabled"),
        pytest.param(seen(desired=OFF), [STOP], id="disabled but runs"),
        pytest.param(seen(desired=Desired(True, Override.STOPPED)), [STOP], id="stopped by hand"),
        pytest.param(
            without_worker(desired=Desired(False, Override.STARTED)), [START], id="started by hand"
        ),
        pytest.param(seen(probe=ZOMBIE), [], id="a zombie is the ladder's"),
        pytest.param(
            seen(claim=said(S.LOADING, phase="login", ago=61)), [], id="and so is a stuck phase"
        ),
        pytest.param(seen(probe=ZOMBIE, record=OFTEN), [], id="attempts used up"),
        pytest.param(LOST, [CONNECT], id="connection lost"),
        pytest.param(ended("connection_lost", record=OPEN), [], id="the circuit is open"),
        pytest.param(ended("connection_lost", record=HALF_OPEN), [CONNECT], id="a trial"),
        pytest.param(
            ended(
                "connection_lost", record=replace(PAIRED, breaker=Breaker(5, WALL - 600, WALL - 1))
            ),
            [],
            id="a trial is under way",
        ),
        pytest.param(ended("page_crashed"), [RESTART], id="page crashed"),
        pytest.param(ended("client_outdated", record=OFTEN), [CONNECT], id="as long as it takes"),
        pytest.param(ended("conflict", record=replace(PAIRED, strikes=2)), [], id="a second one"),
        pytest.param(
            seen(claim=said(S.QR_REQUIRED), record=SessionRecord()), [], id="waits for a scan"
        ),
        pytest.param(SHOWS_CODE, [STOP], id="a suspect is stopped"),
        pytest.param(seen(wait=Wait("same_device")), [STOP], id="another one is its device"),
        *((ended(code), [STOP]) for code in ("logout", "banned")),
        pytest.param(
            ended("temporary_ban", record=BANNED), [STOP], id="it cannot crash and log in"
        ),
        *((ended(code), []) for code in ("qr_idle", "session_damaged")),
        pytest.param(
            seen(claim=said(S.LOADING, ago=1), record=replace(PAIRED, reason="banned")),
            [STOP],
            id="its host started it again after a ban",
        ),
        pytest.param(
            seen(claim=said(S.AUTH_FAILURE, reason="banned"), instance=ELSEWHERE),
            [],
            id="banned, and it is a server's to run it",
        ),
    ],
)
def test_plan(observation, actions):
    assert plan(observation) == actions


@pytest.mark.parametrize("hold", ["backend_down", "incident"])
def test_a_session_that_waits_for_its_network_or_server_does_nothing(hold):
    for observation in (without_worker(), LOST, seen(probe=ZOMBIE)):
        assert plan(changed(observation, wait_reason=hold)) == []


def repairing(trouble, stage):
    return Repair(trouble, "", Goal.HEAL, WALL, stage=stage)


@pytest.mark.parametrize(
    ("observation", "repair", "actions"),
    [
        pytest.param(seen(probe=ZOMBIE), None, [], id="stuck and no repair yet"),
        pytest.param(LOST, repairing(Trouble.CONNECTION, Stage.ACTING), [], id="a step works"),
        pytest.param(LOST, repairing(Trouble.CONNECTION, Stage.SETTLING), [CONNECT], id="a drop"),
        pytest.param(SHOWS_CODE, repairing(Trouble.SUSPECT, Stage.SETTLING), [], id="a suspect"),
        pytest.param(SHOWS_CODE, repairing(Trouble.SUSPECT, Stage.DUE), [STOP], id="its time over"),
        pytest.param(
            LOST,
            Repair(Trouble.CONNECTION, "", Goal.HEAL, WALL, ending=Ending.GAVE_UP),
            [CONNECT],
            id="a repair that is over",
        ),
    ],
)
def test_beside_a_repair(observation, repair, actions):
    assert plan(changed(observation, repair=repair)) == actions


@given(observations)
def test_a_disabled_instance_is_only_ever_stopped(observation):
    if not observation.should_run:
        assert set(plan(observation)) <= {STOP}


@given(observations, st.sampled_from(["logout", "banned"]), st.booleans())
def test_nothing_reconnects_after_a_final_reason(observation, code, claimed):
    if claimed:
        observation = changed(observation, claim=said(S.DISCONNECTED, reason=code))
    else:
        record = replace(observation.record, reason=code)
        observation = changed(observation, record=record, claim=None)
    assert set(plan(observation)) <= {STOP}


@given(observations)
def test_nothing_is_planned_before_its_time(observation):
    if observation.not_before > NOW:
        assert set(plan(observation)) <= {STOP}


@given(observations)
def test_the_next_look_is_in_the_future_and_not_far(observation):
    at = next_deadline(observation, judge_health(observation, POLICY, NOW), POLICY, NOW)
    if observation.should_run:
        assert NOW < at <= NOW + POLICY.interval
    else:
        assert (at is None) == (not observation.unit.runs)


def test_a_session_without_a_lease_is_asked_for_why_soon():
    it = without_worker(wait=Wait("no_lease", again=NOW + 5))
    assert next_deadline(it, judge_health(it, POLICY, NOW), POLICY, NOW) == NOW + 5


@pytest.mark.parametrize(
    "observation",
    [
        pytest.param(seen(claim=said(proof_age=80)), id="proof"),
        pytest.param(seen(claim=said(S.LOADING, phase="login", ago=50)), id="phase"),
        pytest.param(seen(claim=said(S.LOADING, ago=20)), id="state"),
        pytest.param(ended("connection_lost", not_before=NOW + 4), id="next try"),
        pytest.param(ended("connection_lost", record=OPEN), id="circuit"),
        pytest.param(seen(claim=None, probe=None, linked_since=NOW - 3), id="silence"),
    ],
)
def test_every_change_by_time_alone_has_a_pass_in_time(observation):
    def judged(now):
        verdict = judge_health(observation, POLICY, now)
        return verdict.health, verdict.reason, plan(observation, now)

    at = next_deadline(observation, judge_health(observation, POLICY, NOW), POLICY, NOW)
    assert judged(at - 0.01) == judged(NOW)
    assert judged(at) != judged(NOW)


@pytest.mark.parametrize(
    ("files", "reason", "actions"),
    [
        (SessionFiles.WHOLE, "not_running", [START]),
        (SessionFiles.ABSENT, "session_missing", []),
        (SessionFiles.UNREADABLE, "session_unreadable", []),
    ],
)
def test_a_worker_that_met_its_folder_away_is_started_when_it_is_whole(files, reason, actions):
    failed = unit(UnitState.FAILED, exit_status=66, result="exit-code")
    it = seen(unit=failed, claim=None, linked_since=None, probe=None, files=files)
    verdict = judge_health(it, HealthPolicy(), NOW)
    assert verdict.reason == reason
    assert kinds(plan_actions(it, verdict, HealthPolicy(), NOW)) == actions
    deadline = next_deadline(it, verdict, HealthPolicy(), NOW)
    assert (deadline <= NOW + 1) is (files is not SessionFiles.WHOLE), "looked for every second"
    assert needs_repair(verdict) is (files is SessionFiles.ABSENT), "nothing takes its place"
