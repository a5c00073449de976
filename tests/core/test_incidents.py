from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.admission import IncidentPolicy, find_incident
from agent.core.model import InstanceId

POLICY = IncidentPolicy()
NOW = 9_000.0


def failing(count, code="phase_login", *, ago=10.0, first=0):
    return [(InstanceId(f"i{n:03}"), code, NOW - ago) for n in range(first, first + count)]


def find(failures, population=9, successes=()):
    never = dict.fromkeys([id for id, *_ in failures], float("-inf"))
    never |= {str(n): float("-inf") for n in range(population - len(never))}
    found = {id: {code: at} for id, code, at in failures}
    return find_incident("web", found, never | dict(successes), POLICY, NOW)


@pytest.mark.parametrize(
    ("failures", "population", "kind"),
    [
        pytest.param(failing(2), 100, None, id="two of a hundred"),
        pytest.param(failing(3), 100, "change", id="three of a hundred"),
        pytest.param(failing(1), 1, None, id="one alone is no fleet"),
        pytest.param(failing(3, ago=901), 100, None, id="too long ago"),
        pytest.param(failing(3, ago=-5), 100, None, id="from the future"),
        pytest.param(failing(2) + failing(2, "phase_sync", first=5), 100, None, id="not alike"),
        pytest.param(failing(5), 10_000, None, id="noise of a large fleet"),
        pytest.param(failing(100), 10_000, "change", id="not noise"),
        pytest.param(failing(3, "connection_lost"), 100, None, id="three lost connections"),
        pytest.param(failing(30, "connection_lost"), 100, "outage", id="a third lost at once"),
        pytest.param(
            failing(15, "connection_lost") + failing(15, "connection_lost", first=15),
            100,
            "outage",
            id="one network, two words",
        ),
        pytest.param(failing(30, "connection_lost", ago=61), 100, None, id="lost an hour long"),
        pytest.param(failing(50, "conflict"), 100, None, id="each one's own affair"),
        *(
            pytest.param(failing(50, code), 100, None, id=f"{code}: no word of WhatsApp")
            for code in ("client_crashed", "worker_failed")
        ),
        *(
            pytest.param(failing(50, code), 100, None, id=f"{code}: no try would show anything")
            for code in ("logout", "banned", "remote_missing")
        ),
        pytest.param(failing(3, "client_outdated"), 100, "change", id="client outdated"),
        pytest.param(failing(3, "unpaired_suspect"), 100, "change", id="unpaired, no logout seen"),
    ],
)
def test_failures_that_make_an_incident(failures, population, kind):
    found = find(failures, population)
    assert (found.kind if found else None) == kind


def test_where_as_many_succeed_as_fail_it_is_not_the_engine():
    assert find(failing(3), successes=[("x", NOW - 999), ("y", NOW - 5), ("z", NOW - 4)])
    assert find(failing(3), successes=[("x", NOW - 5), ("y", NOW - 4), ("z", NOW - 3)]) is None


def test_connections_after_an_earlier_failure_prove_nothing_about_later_ones():
    earlier, later = failing(7, ago=300), failing(3, first=20, ago=2)
    found = find([*earlier, *later], successes=[(id, NOW - 200) for id, *_ in earlier])
    assert found.members == [id for id, *_ in later]


IDS = [InstanceId(f"i00{n}") for n in range(3)]


def incident():
    found = find(failing(3))
    assert found.next_turn(POLICY, NOW) == NOW + 5, "not at once"
    assert found.give_turn(IDS, POLICY, NOW + 5)
    return found


def test_canaries_take_turns_and_wait_longer_each_time():
    one, now, waits, who = incident(), NOW + 5, [], []
    for _ in range(9):
        who.append(one.canary)
        one.end_turn(POLICY, now)
        assert one.canary is None
        waits.append(one.next_turn(POLICY, now) - now)
        now = one.turn_at
        one.give_turn(IDS, POLICY, now)
    assert waits == [10, 20, 40, 80, 160, 180, 180, 180, 180]
    assert set(who) == set(IDS)


def test_one_whose_tries_always_fail_takes_no_turn_of_one_that_had_nothing_to_try():
    one, now, ready = incident(), NOW + 5, NOW + 300
    while one.canary != IDS[1] or now < ready:
        assert now < ready + 400, "it had no turn"
        if one.canary == IDS[1]:
            one.idle.add(IDS[1])
            one.pass_turn(now)
        elif one.canary == IDS[0]:
            one.end_turn(POLICY, now)
        now += 1
        if now >= one.next_turn(POLICY, now):
            one.give_turn(IDS[:2], POLICY, now)


def test_turns_that_try_nothing_make_the_others_wait_no_longer():
    one, now = incident(), NOW + 5
    for _ in IDS:
        one.idle.add(one.canary)
        one.pass_turn(now)
        one.give_turn(IDS, POLICY, now)
    assert one.canary is None
    assert one.next_turn(POLICY, now) - now == 10


def test_one_that_joins_is_the_next_to_try():
    one, late = incident(), InstanceId("late")
    one.end_turn(POLICY, NOW + 6)
    one.join(late, one.code)
    assert one.give_turn([*IDS, late], POLICY, one.turn_at) and one.canary == late


def test_a_canary_that_fell_silent_has_failed():
    one = incident()
    assert one.next_turn(POLICY, NOW + 100) == NOW + 405
    assert not one.give_turn(IDS, POLICY, NOW + 406)
    assert one.canary is None
    assert one.give_turn(IDS, POLICY, one.turn_at) and one.canary == "i001"


def test_without_one_that_is_able_there_is_no_canary():
    one = find(failing(3))
    assert not one.give_turn([InstanceId("i007")], POLICY, NOW + 99)
    assert one.canary is None


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_no_clock_puts_a_turn_off_longer_than_the_policy(since, now):
    one = replace(incident(), turn_at=since)
    for state in (one, replace(one, canary=None)):
        assert 0 <= state.next_turn(POLICY, now) - now <= 900 + 1e-6
