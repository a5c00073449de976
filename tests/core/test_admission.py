from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.core.admission import (
    Bucket,
    Candidate,
    Gate,
    StartPolicy,
    admit,
    for_reconnects,
    restore_order,
)
from agent.core.model import InstanceId

POLICY = StartPolicy(stagger=2.0, parallel=2, logins=5, login_every=1.0)
FULL = Bucket(5, 0.0)
A, B, C = (InstanceId(name) for name in "abc")


def test_the_most_important_and_most_recent_start_first():
    order = restore_order([Candidate(A), Candidate(B, active_wall=9), Candidate(C, priority=1)])
    assert order == [C, B, A]


def test_starts_are_spread():
    first = admit([A, B, C], Gate(FULL), POLICY, 100, idle=False)
    assert first.admitted == (A,)
    assert first.ask_again == 102
    second = admit([B, C], first.gate, POLICY, 102, idle=False)
    assert second.admitted == (B,)
    third = admit([C], second.gate, POLICY, 110, idle=False)
    assert third.admitted == (), "two are under way"
    assert third.ask_again is None


def test_an_idle_machine_takes_the_next_as_soon_as_the_one_before_is_ready():
    gate = Gate(FULL, under_way=0, last_begun=100)
    assert admit([A], gate, POLICY, 100.3, idle=True).admitted == (A,)
    assert admit([A], gate, POLICY, 100.3, idle=False).admitted == ()


def test_starts_that_only_wait_for_whatsapp_take_no_place_of_the_machine():
    gate = Gate(FULL, under_way=3, light=2, last_begun=100)
    assert admit([A, B], gate, POLICY, 103, idle=False).admitted == (A,)
    assert admit([A], replace(gate, light=1), POLICY, 103, idle=False).admitted == ()
    full = Gate(FULL, under_way=5, light=5, last_begun=100)
    assert admit([A], full, POLICY, 103, idle=True).admitted == (), "a burst is under way"


def test_twice_as_many_reconnects_as_starts_are_under_way_and_the_spacing_does_not_spread_them():
    gate = Gate(FULL, under_way=1, last_begun=100)
    reconnects = for_reconnects(replace(POLICY, parallel=1))
    assert admit([A, B], gate, reconnects, 100, idle=False).admitted == (A,)


def test_a_clock_that_was_set_back_does_not_hold_the_queue():
    outcome = admit([A], Gate(FULL, last_begun=9_999), POLICY, 100, idle=False)
    assert outcome.ask_again == 102


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=60),
    st.floats(1, 10),
    st.floats(0.1, 5),
)
def test_f54_no_window_sees_more_logins_than_the_budget(steps, logins, every):
    policy = StartPolicy(stagger=0, parallel=10**6, logins=logins, login_every=every)
    gate, now, begun = Gate(Bucket(logins, 0)), 0.0, []
    for number, step in enumerate(steps):
        now += step
        waiting = [InstanceId(f"i{number}-{n}") for n in range(20)]
        outcome = admit(waiting, gate, policy, now, idle=True)
        gate = outcome.gate
        begun += [now] * len(outcome.admitted)
    for first in range(len(begun)):
        window = [at for at in begun[first:] if at - begun[first] <= 10]
        assert len(window) <= logins + 10 / every + 1
