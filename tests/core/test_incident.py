from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.incident import (
    Failure,
    IncidentKind,
    IncidentPolicy,
    canary_failed,
    canary_tries,
    choose_canary,
    find_incident,
    join_incident,
    may_start,
)
from agent.core.model import InstanceId

POLICY = IncidentPolicy()
NOW = 9_000.0


def failing(count, code="phase_login", *, ago=10.0, group="web", first=0):
    return [
        Failure(InstanceId(f"i{n:03}"), group, code, NOW - ago) for n in range(first, first + count)
    ]


@pytest.mark.parametrize(
    ("failures", "population", "kind"),
    [
        pytest.param(failing(2), 100, None, id="two of a hundred"),
        pytest.param(failing(3), 100, "change", id="three of a hundred"),
        pytest.param(failing(2), 5, "change", id="over 30 % of five"),
        pytest.param(failing(1), 1, None, id="one alone is no fleet"),
        pytest.param(failing(3, ago=901), 100, None, id="too long ago"),
        pytest.param(failing(3, ago=-5), 100, None, id="from the future"),
        pytest.param(failing(2) + failing(2, "phase_sync", first=5), 100, None, id="not alike"),
        pytest.param(
            failing(2) + failing(2, group="socket", first=5), 100, None, id="not one engine"
        ),
        pytest.param(failing(5), 10_000, None, id="noise of a large fleet"),
        pytest.param(failing(100), 10_000, "change", id="not noise"),
        pytest.param(failing(3, "connection_lost"), 100, None, id="three lost connections"),
        pytest.param(failing(30, "connection_lost"), 100, "outage", id="a third lost at once"),
        pytest.param(
            failing(15, "connection_lost") + failing(15, "connection_closed", first=15),
            100,
            "outage",
            id="one network, two words",
        ),
        pytest.param(failing(30, "connection_lost", ago=61), 100, None, id="lost an hour long"),
        pytest.param(failing(50, "conflict"), 100, None, id="each one's own affair"),
        pytest.param(failing(3, "client_outdated"), 100, "change", id="client outdated"),
    ],
)
def test_what_is_an_incident(failures, population, kind):
    found = find_incident(failures, {"web": population, "socket": population}, POLICY, NOW)
    assert (found.kind.value if found else None) == kind


def test_what_came_before_a_release_is_forgotten():
    assert find_incident(failing(9), {"web": 9}, POLICY, NOW, released_at={"web": NOW - 5}) is None


def incident():
    found = find_incident(failing(3), {"web": 9}, POLICY, NOW)
    return choose_canary(found, [one.instance for one in failing(3)], POLICY, NOW)


def test_only_the_canary_may_start_and_only_when_it_is_time():
    one = incident()
    assert one.canary == "i000"
    assert one.hold == "incident"
    assert not may_start(one, InstanceId("i001"), "web", NOW + 99)
    assert not may_start(one, InstanceId("i000"), "web", NOW)
    assert may_start(one, InstanceId("i000"), "web", NOW + 5)
    assert may_start(one, InstanceId("i001"), "socket", NOW)
    assert may_start(None, InstanceId("i001"), "web", NOW)


def test_canaries_take_turns_and_wait_longer_each_time():
    one, now, waits, who = incident(), NOW + 5, [], []
    for _ in range(9):
        who.append(one.canary)
        one = canary_failed(canary_tries(one, now), POLICY, now)
        waits.append(one.canary_at - now)
        now = one.canary_at
        one = choose_canary(one, [InstanceId(f"i00{n}") for n in range(3)], POLICY, now)
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert set(who) == {"i000", "i001", "i002"}


def test_a_canary_that_fell_silent_has_failed():
    one = canary_tries(incident(), NOW + 5)
    ids = list(one.members)
    assert choose_canary(one, ids, POLICY, NOW + 100) == one
    later = choose_canary(one, ids, POLICY, NOW + 406)
    assert later.trying_since is None
    assert later.canary == "i001"
    assert later.canary_at > NOW + 406


def test_a_newcomer_is_a_member_and_not_another_alert():
    one = incident()
    (more,) = failing(1, first=7)
    assert join_incident(one, more).members == (*one.members, "i007")
    assert join_incident(join_incident(one, more), more) == join_incident(one, more)
    assert join_incident(one, replace(more, group="socket")) == one


@given(
    st.lists(
        st.builds(
            Failure,
            instance=st.text("ab", min_size=1, max_size=6),
            group=st.sampled_from(["web", "socket"]),
            code=st.sampled_from(["phase_login", "connection_lost", "conflict", ""]),
            at=st.floats(0, 2 * NOW),
        ),
        max_size=60,
    ),
    st.integers(1, 1000),
)
def test_an_incident_names_a_real_crowd(failures, population):
    found = find_incident(failures, {"web": population, "socket": population}, POLICY, NOW)
    assert found == find_incident(failures, {"web": population, "socket": population}, POLICY, NOW)
    if found:
        assert len(found.members) >= min(3, max(2, 0.3 * population))
        if found.kind is IncidentKind.OUTAGE:
            assert len(found.members) >= max(3, 0.3 * population)
