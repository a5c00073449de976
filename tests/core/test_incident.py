from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.incidents.book import IncidentBook
from agent.core.incidents.incident import (
    Failure,
    IncidentPolicy,
    canary_failed,
    choose_canary,
    find_incident,
    incident_wait_reason,
    next_turn,
    odd_one_out,
)
from agent.core.model import InstanceId
from agent.core.reasons import REASONS

POLICY = IncidentPolicy()
LOCAL = sorted(code for code, reason in REASONS.items() if reason.local)
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
        *(
            pytest.param(failing(50, code), 100, None, id=f"{code}: no word of WhatsApp")
            for code in ("client_crashed", "worker_failed")
        ),
        *(
            pytest.param(failing(50, code), 100, None, id=f"{code}: no try would show anything")
            for code in ("logout", "remote_missing")
        ),
        pytest.param(failing(3, "client_outdated"), 100, "change", id="client outdated"),
        pytest.param(failing(3, "unpaired_suspect"), 100, "change", id="unpaired, no logout seen"),
    ],
)
def test_failures_that_make_an_incident(failures, population, kind):
    found = find_incident(failures, {"web": population, "socket": population}, {}, POLICY, NOW)
    assert (found.kind.value if found else None) == kind


def test_a_process_of_this_machine_that_ended_is_no_word_of_whatsapp():
    assert {"client_crashed", "client_failing", "pack_ended", "worker_failed"} <= set(LOCAL)
    assert {"connection_lost", "client_outdated", "page_crashed"}.isdisjoint(LOCAL)


def test_where_as_many_succeed_as_fail_it_is_not_the_engine():
    few = {"web": [NOW - 5, NOW - 4, NOW - 999]}
    enough = {"web": [NOW - 5, NOW - 4, NOW - 3]}
    assert find_incident(failing(3), {"web": 9}, few, POLICY, NOW)
    assert find_incident(failing(3), {"web": 9}, enough, POLICY, NOW) is None


IDS = [InstanceId(f"i00{n}") for n in range(3)]


def incident():
    found = find_incident(failing(3), {"web": 9}, {}, POLICY, NOW)
    assert choose_canary(found, IDS, POLICY, NOW) == found, "not at once"
    return choose_canary(found, IDS, POLICY, NOW + 5)


@pytest.mark.parametrize(
    ("instance", "group", "fresh", "wait_reason"),
    [
        pytest.param("i000", "web", True, "", id="the canary"),
        pytest.param("i001", "web", False, "incident", id="a member"),
        pytest.param("i999", "web", True, "incident", id="a start of that engine"),
        pytest.param("i999", "web", False, "", id="a worker that only lost its connection"),
        pytest.param("i999", "socket", True, "", id="another engine"),
    ],
)
def test_which_instances_wait_in_a_change(instance, group, fresh, wait_reason):
    assert incident_wait_reason(incident(), InstanceId(instance), group, fresh=fresh) == wait_reason
    assert incident_wait_reason(None, InstanceId(instance), group, fresh=fresh) == ""


def test_an_outage_holds_everyone():
    outage = find_incident(failing(30, "connection_lost"), {"web": 90}, {}, POLICY, NOW)
    assert incident_wait_reason(outage, InstanceId("i999"), "web", fresh=False) == "network_down"


def test_canaries_take_turns_and_wait_longer_each_time():
    one, now, waits, who = incident(), NOW + 5, [], []
    for _ in range(9):
        who.append(one.canary)
        one = canary_failed(one, POLICY, now)
        assert one.canary is None
        waits.append(one.canary_at - now)
        now = one.canary_at
        one = choose_canary(one, IDS, POLICY, now)
    assert waits == [10, 20, 40, 80, 160, 180, 180, 180, 180]
    assert set(who) == set(IDS)


def test_one_whose_tries_always_fail_takes_no_turn_of_one_that_had_nothing_to_try():
    book, now, ready = IncidentBook(), NOW, NOW + 300
    book.active["web"] = find_incident(failing(3)[:2], {"web": 3}, {}, POLICY, NOW)
    while book.active["web"].canary != IDS[1] or now < ready:
        assert now < ready + 400, "it had no turn"
        one = book.active["web"]
        if one.canary == IDS[1]:
            book.nothing_to_try("web", IDS[1], now)
        elif one.canary == IDS[0]:
            book.failed(failing(1)[0], POLICY, dict, all_the_way=False)
        now = max(now + 1, NOW)
        book.give_turn("web", POLICY, now, lambda _: IDS[:2], lambda _: False)


def test_a_canary_that_fell_silent_has_failed():
    one = incident()
    assert choose_canary(one, IDS, POLICY, NOW + 100) == one
    later = choose_canary(one, IDS, POLICY, NOW + 406)
    assert later.canary is None
    assert choose_canary(later, IDS, POLICY, later.canary_at).canary == "i001"


def test_without_a_candidate_there_is_no_canary():
    found = find_incident(failing(3), {"web": 9}, {}, POLICY, NOW)
    assert choose_canary(found, [], POLICY, NOW + 99).canary is None
    assert choose_canary(found, [InstanceId("i007")], POLICY, NOW + 99).canary == "i007"


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_no_clock_puts_a_turn_off_longer_than_the_policy(since, now):
    one = replace(incident(), canary_at=since)
    for state in (one, replace(one, canary=None)):
        assert 0 <= next_turn(state, POLICY, now) - now <= 900 + 1e-6


@pytest.mark.parametrize(
    ("failing", "population", "odd"),
    [
        pytest.param({"i000": "phase_sync"}, 9, True, id="alone"),
        pytest.param({"i000": "phase_sync", "i001": "zombie"}, 9, True, id="others fail otherwise"),
        pytest.param({"i000": "phase_sync", "i001": "phase_sync"}, 9, False, id="two alike"),
        pytest.param({"i000": "phase_sync", "i001": "phase_sync"}, 900, True, id="noise"),
    ],
)
def test_the_odd_one_out(failing, population, odd):
    assert odd_one_out(InstanceId("i000"), failing, population, POLICY) is odd
