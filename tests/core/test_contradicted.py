"""A session that its own answer proves to be open, whatever its server's list says of it."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.health.judge import judge_health
from agent.core.health.policy import HealthPolicy
from agent.core.model import ConnectionStatus, Instance, InstanceId, ProbeFact
from agent.core.recovery.beginning import begin_repair, wants_repair
from agent.core.recovery.policy import RecoveryPolicy
from agent.core.recovery.repair import Case, Circumstances, Goal, RecoveryKind
from agent.core.recovery.steps import after_action, step_repair
from agent.engines.evolution.claims import Facts, Live, claim_of, disagreement
from agent.engines.evolution.rows import Row
from tests.core.made import NOW, WALL, said, seen

K = RecoveryKind
HEALTH, POLICY = HealthPolicy(), RecoveryPolicy()
THERE = Instance(InstanceId("sales"), "evolution", True, {"backend": "evo"})

rows = st.none() | st.builds(
    Row,
    status=st.sampled_from([*(live.value for live in Live), "", "archived"]),
    live=st.booleans(),
    account=st.sampled_from(["", "5511977770001@s.whatsapp.net"]),
    code=st.none() | st.sampled_from([401, 403, 405, 408, 428, 440, 500, 515]),
    text=st.sampled_from(["", "logged out"]),
    closed_wall=st.floats(0, 2 * WALL),
)
around = st.builds(
    Circumstances,
    well=st.booleans(),
    odd_one_out=st.booleans(),
    canary=st.booleans(),
    can_log_out=st.just(True),
    good_snapshot=st.booleans(),
    may_roll_back=st.booleans(),
)
looks = st.lists(st.tuples(rows, around, st.booleans()), min_size=1, max_size=6)


@given(rows, st.floats(0, 2 * WALL), st.booleans())
def test_no_row_of_the_list_takes_the_word_from_a_session_that_is_open(row, open_until, paired):
    facts = Facts(Live.OPEN, row, True, open_until=open_until, paired=paired)
    claim = claim_of(facts, 25.0)
    assert (claim.status, claim.reason) == (ConnectionStatus.CONNECTED, "")
    assert claim.paired


@given(looks, st.sampled_from([Goal.HEAL, Goal.RECOVER, Goal.WORKING_QR]))
def test_its_status_never_flaps_no_repair_ends_its_pairing_and_it_is_restarted_once(world, goal):
    repair, wall, repairs, done = None, WALL, 0, []
    for number in range(400):
        row, circumstances, ok = world[number % len(world)]
        live = claim_of(Facts(Live.OPEN, row, True, paired=True), 25.0)
        probe = ProbeFact(True, NOW - 1, 0.1, disagrees=disagreement(Live.OPEN, row))
        claim = said(ConnectionStatus.CONNECTED, paired=True, useless=live.useless)
        observation = seen(instance=THERE, probe=probe, claim=claim)
        verdict = judge_health(observation, HEALTH, NOW)
        assert verdict.state is ConnectionStatus.CONNECTED
        assert not verdict.should_cleanup
        wall += 1.0
        if repair is None or repair.over:
            if not wants_repair(verdict, repair, POLICY, wall):
                continue
            repair = begin_repair(verdict, goal, wall)
            repairs, done = repairs + 1, []
        repair, action = step_repair(
            Case(observation, verdict, circumstances, POLICY, wall), repair
        )
        if action.kind is K.WAIT:
            wall = max(wall, min(action.not_before_wall, wall + 7200.0))
        if repair.over or action.kind in (K.WAIT, K.NONE):
            continue
        assert action.kind in (K.RECONNECT, K.RESTART), "it works: nothing harsher"
        done += [action.kind] if ok else []
        repair = after_action(repair, action.kind, ok, POLICY, wall, backup="there")
        assert done.count(K.RESTART) <= 1
