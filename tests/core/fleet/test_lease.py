"""Leases, promises and sightings: who may run a session, by one machine's clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.fleet.lease import Lease, LeasePolicy, extended, renewed
from agent.core.fleet.promises import Takeover, may_promise, settle
from agent.core.fleet.sightings import Sightings, lapses_at, look, vouched
from agent.core.fleet.takeover import (
    Peer,
    Refusal,
    Standing,
    refuse_takeover,
)

POLICY = LeasePolicy(ttl=20, margin=4)
ME, PEER, OTHER = 1, 2, 3


def test_a_lease_ends_a_margin_before_others_may_take_over():
    lease = renewed(Lease(0), 100, POLICY)
    assert lease.holds(115.9)
    assert not lease.holds(116)


def test_an_answer_that_comes_late_shortens_no_lease():
    assert renewed(renewed(Lease(0), 100, POLICY), 90, POLICY) == Lease(116)


@pytest.mark.parametrize(
    ("promised", "until"),
    [
        pytest.param({PEER, OTHER}, 126, id="all rivals promised"),
        pytest.param({PEER}, 116, id="one rival may be taking over"),
        pytest.param(set(), 116, id="no rival answers"),
    ],
)
def test_without_the_database_every_rival_must_promise(promised: set[int], until: float):
    assert extended(Lease(116), 110, {PEER, OTHER}, promised, POLICY) == Lease(until)


def test_a_machine_without_rivals_goes_on_alone():
    assert extended(Lease(116), 110, set(), set(), POLICY) == Lease(126)


def test_a_promise_outlives_the_lease_that_is_built_on_it():
    """Who promises counts the machine as seen, and takes nobody over that it saw within a ttl."""
    promised = vouched(look(Sightings(), {PEER: 7}, 20, POLICY), {PEER}, 50)
    me = replace(STANDING, sightings=promised)
    assert refuse_takeover(me, LOST, 50 + POLICY.usable, POLICY) is Refusal.RENEWS
    assert refuse_takeover(me, LOST, 50 + POLICY.ttl, POLICY) is None


def test_an_agent_that_restarts_and_knows_no_promise_takes_nobody_over_within_a_ttl():
    me = replace(STANDING, sightings=look(Sightings(), {PEER: 7}, 60, POLICY))
    assert refuse_takeover(me, LOST, 60 + POLICY.ttl - 1, POLICY) is Refusal.RENEWS


def test_no_promise_in_an_epoch_that_was_taken_over_or_may_have_been():
    sent = {PEER: Takeover(epoch=4, renewals=9)}
    assert may_promise({}, PEER, 4)
    assert not may_promise(sent, PEER, 4)
    assert may_promise(sent, PEER, 5), "it came back and knows"
    unknown = settle(sent, {PEER: 4}, {PEER: 9})
    assert not may_promise(unknown, PEER, 4), "the takeover may still arrive"
    done = settle(sent, {PEER: 5}, {PEER: 9})
    assert not may_promise(done, PEER, 4), "the takeover happened"
    void = settle(sent, {PEER: 4}, {PEER: 10})
    assert may_promise(void, PEER, 4), "it renewed: the takeover is void"


def test_a_standing_number_lapses_after_a_ttl_from_when_it_was_first_seen():
    seen = look(Sightings(), {PEER: 7}, 100, POLICY)
    seen = look(seen, {PEER: 7}, 103, POLICY)
    assert lapses_at(seen, PEER, POLICY) == 120
    assert lapses_at(look(seen, {PEER: 8}, 106, POLICY), PEER, POLICY) == 126
    assert lapses_at(seen, OTHER, POLICY) is None


def test_after_a_gap_in_the_reading_every_machine_gets_a_whole_ttl():
    seen = look(Sightings(), {PEER: 7}, 100, POLICY)
    assert lapses_at(look(seen, {PEER: 7}, 700, POLICY), PEER, POLICY) == 720


STANDING = Standing(ME, Lease(200), look(Sightings(), {PEER: 7}, 100, POLICY), halted=False)
LOST = Peer(PEER, epoch=0, rivals=frozenset({ME, OTHER}), sessions=3)


@pytest.mark.parametrize(
    ("me", "peer", "now", "refusal"),
    [
        pytest.param(STANDING, LOST, 120, None, id="its lease has ended"),
        pytest.param(STANDING, LOST, 119, Refusal.RENEWS, id="it may still renew"),
        pytest.param(STANDING, replace(LOST, sessions=0), 120, Refusal.EMPTY, id="nothing to take"),
        pytest.param(replace(STANDING, halted=True), LOST, 120, Refusal.HALTED, id="lost records"),
        pytest.param(STANDING, LOST, 200, Refusal.OWN_LEASE, id="the own lease has ended too"),
        pytest.param(
            STANDING,
            replace(LOST, rivals=frozenset({OTHER})),
            120,
            Refusal.NOT_A_RIVAL,
            id="it asks this machine for no promise",
        ),
        pytest.param(
            replace(STANDING, sightings=Sightings()), LOST, 120, Refusal.RENEWS, id="never seen"
        ),
    ],
)
def test_machines_that_may_be_taken_over(
    me: Standing, peer: Peer, now: float, refusal: Refusal | None
):
    assert refuse_takeover(me, peer, now, POLICY) is refusal


@given(
    ask=st.floats(0, 1e6),
    travel=st.floats(0, 30),
    mine=st.floats(0.99, 1.01),
    theirs=st.floats(0.99, 1.01),
    seen=st.floats(0, 30),
)
def test_no_clock_that_is_a_hundredth_off_makes_two_leases_meet(
    ask: float, travel: float, mine: float, theirs: float, seen: float
):
    """A renewal is asked for at `ask`, recorded `travel` later, and seen `seen` after that."""
    ends = ask + POLICY.usable / mine
    taken = ask + travel + seen + POLICY.ttl / theirs
    assert ends + 3 < taken, "three seconds are left to close connections"
