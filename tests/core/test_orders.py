"""Plans beside reconnecting and the ladder, and acts of an operator past the agent."""

from dataclasses import replace

import pytest

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import ConnectionStatus as S
from agent.core.model import Instance, InstanceId, Override, SessionRecord, UnitState
from agent.core.reconcile import ActionKind, plan_asked
from agent.core.recovery.ladder import Decision
from agent.core.recovery.repair import Goal, Ground, Proof, RecoveryKind, Repair, Trouble
from agent.core.session import Session
from agent.supervise.act import plan_step
from tests.core.made import NOW, OFF, PAIRED, said, seen, unit, without_worker
from tests.sessions import changed

LOGGED_OUT = replace(PAIRED, reason="logout")
ENDED = seen(record=LOGGED_OUT, claim=said(S.AUTH_FAILURE, reason="logout"))
K = ActionKind
REMOTE = Instance(InstanceId("sales"), "evolution", True, {"backend": "evo"})


def asked(observation, *, start=False, restart_for=""):
    observation = replace(observation, record=replace(observation.record, start_asked=start))
    verdict = judge_health(observation, HealthPolicy(), NOW)
    return plan_asked(observation, verdict, restart_for=restart_for)


@pytest.mark.parametrize(
    ("observation", "actions"),
    [
        pytest.param(ENDED, (K.STOP, K.SET_ASIDE), id="the phone logged it out"),
        pytest.param(changed(ENDED, record=replace(LOGGED_OUT, paired=False)), None, id="done"),
        pytest.param(changed(ENDED, claim=said()), None, id="its worker claims to be connected"),
        pytest.param(changed(ENDED, desired=OFF), None, id="it should not run"),
        pytest.param(changed(ENDED, unit=unit(job_pending=True)), None, id="a job is under way"),
        pytest.param(
            seen(record=replace(PAIRED, restart_of="r1")), (K.RESTART,), id="a restart is ordered"
        ),
        pytest.param(
            seen(record=replace(PAIRED, restart_of="r0")), None, id="that run is over already"
        ),
        pytest.param(
            seen(record=replace(PAIRED, restart_of="r0"), instance=REMOTE), (K.RESTART,), id="there"
        ),
        pytest.param(seen(), None, id="nothing"),
    ],
)
def test_orders(observation, actions):
    plan = asked(observation)
    assert (plan and plan.actions) == actions
    assert plan is None or plan.ordered is bool(observation.record.restart_of)


def test_an_ordered_start_is_tried_even_where_the_settings_were_wrong():
    failed = without_worker(UnitState.FAILED, exit_status=78)
    assert asked(failed) is None
    assert asked(failed, start=True).actions == (K.START,)
    assert asked(without_worker(), start=True) is None, "the plan of every pass starts it"


@pytest.mark.parametrize("reason", ["proxy_block", "banned"])
def test_an_ordered_start_makes_one_try_where_a_worker_that_runs_was_given_up(reason):
    given_up = seen(claim=said(S.AUTH_FAILURE, reason=reason))
    assert asked(given_up) is None
    assert asked(given_up, start=True).actions == (K.RESTART,)
    assert asked(replace(given_up, instance=REMOTE), start=True).actions == (K.CONNECT,)


@pytest.mark.parametrize(
    "claim",
    [said(), said(S.QR_REQUIRED, reason="passkey_required")],
    ids=["it is connected", "it shows a code"],
)
def test_an_ordered_start_restarts_no_worker_that_goes_on_by_itself(claim):
    assert asked(seen(claim=claim), start=True) is None


BOOT = "b1"
RAN = SessionRecord(seen_run="r1", seen_boot=BOOT)


@pytest.mark.parametrize(
    ("changes", "ours", "enabled", "started"),
    [
        pytest.param({}, "", False, True, id="disabled, and a new run"),
        pytest.param({}, "r2", False, False, id="the agent started that run"),
        pytest.param({}, "", True, False, id="enabled: the boot may have started it"),
        pytest.param(
            {"override": Override.STOPPED, "override_boot": BOOT}, "", True, True, id="stopped"
        ),
        pytest.param({"reason": "banned"}, "", True, True, id="WhatsApp ended it"),
        pytest.param({"reason": "temporary_ban", "not_before_wall": 9.0}, "", True, True, id="ban"),
    ],
)
def test_a_start_by_hand(changes, ours, enabled, started):
    run = replace(unit(), run="r2")
    its = Session(
        Instance(InstanceId("one"), "sandbox", enabled), replace(RAN, **changes), run, boot=BOOT
    )
    assert its.started_by_hand(ours) is started
    its.unit = replace(run, restarts=1)
    assert not its.started_by_hand(ours)


@pytest.mark.parametrize(
    ("kind", "remote", "actions"),
    [
        (RecoveryKind.RECONNECT, False, (K.DISCONNECT, K.CONNECT)),
        (RecoveryKind.RESTART, False, (K.RESTART,)),
        (RecoveryKind.RESTORE, False, (K.STOP, K.RESTORE, K.START)),
        (RecoveryKind.CLEANUP, False, (K.STOP, K.SET_ASIDE, K.START)),
        (RecoveryKind.CLEANUP, True, (K.RENEW, K.SET_ASIDE)),
        (RecoveryKind.LOGOUT_RESTART, True, (K.LOGOUT, K.RESTART, K.SET_ASIDE)),
    ],
)
def test_a_step_of_a_repair_is_made_of_the_actions_of_every_plan(kind, remote, actions):
    decision = Decision(kind, "so", proof=Proof(Ground.NO_PAIRING))
    repair = Repair(Trouble.CONNECTION, "", Goal.HEAL, 0.0)
    plan = plan_step(decision, repair, remote=remote)
    assert (plan.name, plan.actions, plan.repair) == (kind.value, actions, repair)
    assert plan.logs_in
