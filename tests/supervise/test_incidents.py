"""Who counts as failing alike."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.clock import boot_now
from agent.config.config import Config
from agent.core.model import (
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.core.reconnect import ReconnectPolicy, after_drop, after_try
from agent.core.words import SUSPECT
from agent.supervise.facts import Facts, Settings
from agent.supervise.gate import Incidents

WELL = HealthVerdict(Health.HEALTHY, ConnectionStatus.CONNECTED, "", "")
ZOMBIE = HealthVerdict(Health.STUCK, ConnectionStatus.RECONNECTING, "zombie", "")


def made(*ids, engine="sandbox", **settings):
    every = [Instance(InstanceId(id), engine, True, settings, 1.0) for id in ids]
    facts = {its.id: Facts(its, SessionRecord()) for its in every}
    return watching(facts), facts


def rest(facts):
    facts.instance = replace(facts.instance, enabled=False)


def watching(facts, away=frozenset(), ways=None):
    reaching = SimpleNamespace(
        of=lambda one: SimpleNamespace(away=one.id in away),
        way_out=lambda one: (ways or {}).get(one.id, ""),
    )
    notes = SimpleNamespace(write=lambda _: None)
    return Incidents(Settings(Config()), facts, lambda _: None, notes, reaching, reaching)


def lose(incidents, facts, code="connection_lost"):
    """As a pass does: the drop is counted, then told."""
    facts.record = after_drop(facts.record, code, ReconnectPolicy(), time.time(), 0.5)
    incidents.failed(facts, code)


@pytest.mark.parametrize(
    ("reason", "alone"),
    [("disabled", True), ("client_outdated", True), ("starting", False), ("backend_down", False)],
)
def test_a_stopped_member_fails_no_more(reason, alone):
    incidents, facts = made("a", "b")
    for one in facts.values():
        incidents.judged(one, ZOMBIE)
    assert not incidents.odd_one_out(facts["a"])
    rest = HealthVerdict(Health.DISCONNECTED, ConnectionStatus.DISCONNECTED, reason, "")
    incidents.judged(facts["b"], rest)
    assert incidents.odd_one_out(facts["a"]) is alone


def test_in_a_large_group_two_that_fail_alike_are_noise():
    incidents, facts = made(*map(str, range(900)))
    for id in "12":
        incidents.judged(facts[id], ZOMBIE)
    assert incidents.odd_one_out(facts["1"])


def test_another_one_of_the_same_server_shows_that_it_can_connect():
    _, facts = made("a", "b")
    _, there = made("c", engine="web")
    incidents = watching(facts | there)
    assert not incidents.another_connected(facts["a"]), "no session was looked at"
    facts["a"].verdict = there["c"].verdict = WELL
    facts["b"].verdict = ZOMBIE
    assert not incidents.another_connected(facts["a"])
    assert incidents.another_connected(facts["b"])


@pytest.mark.parametrize(
    ("ways", "proved"),
    [({}, True), ({"a": "p"}, False), ({"a": "p", "b": "q"}, False), ({"a": None}, False)],
    ids=["no proxies", "its own", "two", "unknown"],
)
def test_only_one_that_goes_out_the_same_way_shows_that_it_can_connect(ways, proved):
    _, facts = made("a", "b")
    incidents = watching(facts, ways=ways)
    facts["a"].verdict, facts["b"].verdict = ZOMBIE, WELL
    assert incidents.another_connected(facts["a"]) is proved


def give_turn(incidents, later):
    incident = incidents.active["sandbox"]
    incidents.give_turn(incident, boot_now() + later)
    return incident.canary


def test_the_canary_spends_no_attempt_and_opens_no_circuit():
    incidents, facts = made("a", "b", "c")
    for one in facts.values():
        lose(incidents, one)
    for turn in range(1, 40):
        canary = facts[give_turn(incidents, 1000.0 * turn)]
        canary.record = after_try(canary.record, ReconnectPolicy(), time.time(), 0.5)
        lose(incidents, canary)
    for one in facts.values():
        assert (one.record.attempts, one.record.breaker.opened_at) == (0, None)


def test_no_canary_tries_while_no_address_can_be_reached_and_one_does_once_it_is_back():
    _, facts = made("a", "b", "c")
    away = set(facts)
    incidents = watching(facts, away)
    for one in facts.values():
        lose(incidents, one)
    assert give_turn(incidents, 1000.0) is None
    away.discard(InstanceId("b"))
    assert give_turn(incidents, 0.0) == "b"
    away.add(InstanceId("b"))
    assert give_turn(incidents, 0.0) is None, "its turn proves nothing"
    assert incidents.active["sandbox"].tries == 0


STUCK = HealthVerdict(Health.STUCK, ConnectionStatus.INITIALIZING, "state_stuck", "")
SHOWS_CODE = HealthVerdict(
    Health.DISCONNECTED, ConnectionStatus.QR_REQUIRED, "waiting_for_scan", ""
)


def told(incidents, facts, verdict):
    """As a pass does it."""
    facts.verdict = verdict
    if verdict.health is Health.STUCK:
        incidents.failed(facts, verdict.reason)
    incidents.judged(facts, verdict)


def test_a_suspect_waits_for_an_incident_of_suspects_and_for_no_other():
    for code, waits in ((SUSPECT, "incident"), ("phase_login", "")):
        incidents, facts = made("a", "b", "c")
        for one in facts.values():
            one.verdict = replace(STUCK, reason=SUSPECT)
            incidents.failed(one, code)
        assert {incidents.wait_reason(one) for one in facts.values()} == {waits}


def test_an_incident_is_over_when_all_its_members_show_their_codes():
    incidents, facts = made("a", "b", "c")
    for one in facts.values():
        told(incidents, one, STUCK)
    told(incidents, facts["c"], SHOWS_CODE)
    assert list(incidents.active) == ["sandbox"]
    told(incidents, facts["a"], SHOWS_CODE)
    assert list(incidents.active) == ["sandbox"], "b is stuck still"
    told(incidents, facts["b"], SHOWS_CODE)
    assert incidents.active == {}


def in_outage(*more):
    """Five lose their connection at once; the first canary has its turn."""
    incidents, facts = made("a", "b", "c", "d", "e", *more)
    for id in "abcde":
        lose(incidents, facts[id])
    (outage,) = incidents.active.values()
    outage.give_turn("a", incidents.settings.config.incident, boot_now())
    assert {incidents.wait_reason(facts[id]) for id in "bcde"} == {"network_down"}
    return incidents, facts


@pytest.mark.parametrize("code", ["banned", "conflict"])
def test_an_answer_of_whatsapp_to_the_canary_ends_an_outage_whatever_it_says(code):
    incidents, facts = in_outage()
    lose(incidents, facts["a"], code)
    assert not incidents.active
    assert {incidents.wait_reason(one) for one in facts.values()} == {""}


def test_what_the_network_can_cause_ends_no_outage():
    for code in ("connection_lost", "unknown", "start_stuck", "client_crashed"):
        incidents, facts = in_outage()
        lose(incidents, facts["a"], code)
        assert incidents.active, code
    incidents, facts = in_outage()
    lose(incidents, facts["b"], "banned")
    assert incidents.active, "it had its word before, perhaps"


def test_failures_from_before_its_end_begin_no_second_incident():
    incidents, facts = in_outage()
    incidents.wake = (woken := []).append
    incidents.succeeded(facts["a"])
    assert {*woken} == {*"abcde"}
    lose(incidents, facts["d"])
    assert not incidents.active
    woken.clear()
    for id in "bc":
        lose(incidents, facts[id])
    assert {*woken} == {*"bcd"}, "each member shows at once that it waits"


def test_a_session_that_whatsapp_unpaired_waits_for_no_network():
    incidents, facts = in_outage()
    assert incidents.wait_reason(facts["b"]) == "network_down"
    lose(incidents, facts["b"], "logout")
    assert incidents.wait_reason(facts["b"]) == ""


def test_who_has_not_failed_waits_for_none_of_them_and_ends_it_by_connecting():
    """Five that were outdated held up twenty healthy ones and each new one for twelve minutes."""
    ids = "abcdefgh"
    incidents, facts = made(*ids)
    for id in "abc":
        lose(incidents, facts[id], "client_outdated")
    assert [id for id in ids if incidents.wait_reason(facts[id])] == ["a", "b", "c"]
    lose(incidents, facts["d"], "client_outdated")
    assert incidents.wait_reason(facts["d"]) == "incident", "it failed alike"
    for id in "efg":
        incidents.succeeded(facts[id])
    assert incidents.active
    incidents.succeeded(facts["h"])
    assert not incidents.active, "as many connected as had failed"


def fails_together(incidents, facts):
    for id in ("a", "b", "c"):
        lose(incidents, facts[id], "phase_login")
    return give_turn(incidents, 3600)


RESTS = HealthVerdict(Health.DISCONNECTED, ConnectionStatus.DISCONNECTED, "disabled", "")


def test_who_rests_is_no_canary_and_nobody_waits_for_it():
    _, facts = made("a", "b", "c", "d")
    incidents = watching(facts)
    rest(facts["a"])
    first = fails_together(incidents, facts)
    assert first in ("b", "c")
    rest(facts[first])
    incidents.judged(facts[first], RESTS)
    assert incidents.active["sandbox"].canary is None, "its turn is over"
    second = give_turn(incidents, 0)
    assert {first, second} == {"b", "c"}
    rest(facts[second])
    incidents.judged(facts[second], RESTS)
    assert not incidents.active, "none of its members should run"
    assert incidents.wait_reason(facts["d"]) == ""


def test_only_the_canarys_own_doings_end_its_turn_and_cost_nothing():
    incidents, facts = made("a", "b", "c")
    canary = fails_together(incidents, facts)
    other = facts[next(id for id in facts if id != canary)]
    incidents.pass_turn(other.id)
    assert incidents.active["sandbox"].canary == canary
    incidents.succeeded(other)
    assert list(incidents.active) == ["sandbox"], "the others wait for the canary"
    for _ in range(5):
        lose(incidents, other, "phase_login")
    assert other.record.breaker.opened_at
