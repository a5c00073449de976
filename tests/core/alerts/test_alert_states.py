"""The parts of the alerts: the past as steps, conditions, pending and firing, the words."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.alerts import alert_table
from agent.core.alerts import (
    INHIBITIONS,
    ActiveAlert,
    Alert,
    AlertState,
    Figures,
    History,
    Severity,
    Sight,
    advance,
    silenced,
)
from agent.core.alerts import series as s
from agent.core.alerts.alert import Unit
from agent.core.alerts.expression import Binary, Fold
from agent.core.alerts.history import HistorySteps
from agent.core.alerts.reading import _FUNCTIONS, Absent, Over, duration
from agent.core.alerts.show import show_value, summarize
from agent.core.alerts.source import Series
from agent.core.model import ConnectionStatus, Desired, Health, HealthVerdict, InstanceId, Override
from agent.core.reasons import reasons_table
from agent.core.recovery.beginning import begin_repair
from agent.core.recovery.repair import Ending, Goal
from tests.fakes.supervisor import make_view

TABLE = {alert.name: alert for alert in alert_table()}
DOWN = TABLE["WaSessionDown"]
SALES = (("session", "sales"),)
LOST = "WaMessagesMissing"


# --- the past ---------------------------------------------------------------------------------

READINGS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=30)


def noted(readings: list[tuple[int, int]]) -> tuple[HistorySteps, list[tuple[float, float]]]:
    steps, plain, at = HistorySteps(), [], 0.0
    for wait, value in readings:
        at += wait
        steps.note(at, value)
        plain.append((at, float(value)))
    return steps, plain


def holding(plain: list[tuple[float, float]], start: float, end: float) -> list[float]:
    """Every value that held at some moment of the window, the plain way."""
    before = [value for at, value in plain if at <= start][-1:]
    return before + [value for at, value in plain if start < at <= end]


@given(READINGS, st.integers(0, 800), st.integers(1, 400))
def test_steps_say_what_all_readings_would(
    readings: list[tuple[int, int]], end: int, window: int
) -> None:
    steps, plain = noted(readings)
    start = float(end - window)
    values = holding(plain, start, float(end))
    pairs = list(pairwise(values))
    rise = sum(new - old if new >= old else new for old, new in pairs)
    assert steps.least(start, end) == min(values, default=None)
    assert steps.increase(start, end) == (rise if values else None)
    changed = sum(old != new for old, new in pairs)
    assert steps.changes(start, end) == (changed if values else None)


@given(READINGS, st.integers(1, 400))
def test_forgotten_points_are_missed_by_no_window(
    readings: list[tuple[int, int]], window: int
) -> None:
    steps, plain = noted(readings)
    end = plain[-1][0]
    wanted = (steps.least(end - window, end), steps.increase(end - window, end))
    steps.forget(end - window)
    assert (steps.least(end - window, end), steps.increase(end - window, end)) == wanted


@given(READINGS, st.integers(0, 800), st.integers(1, 400))
def test_a_mean_weighs_each_value_by_how_long_it_held(
    readings: list[tuple[int, int]], end: int, window: int
) -> None:
    steps, plain = noted(readings)
    start = max(end - window, 0)
    found = steps.mean(float(start), float(end))
    seconds = [
        [value for at, value in plain if at <= second][-1]
        for second in range(start, end)
        if plain[0][0] <= second
    ]
    if seconds:
        assert found == pytest.approx(sum(seconds) / len(seconds))


def test_a_value_that_stays_costs_one_point() -> None:
    steps = HistorySteps()
    for at in range(10_000):
        steps.note(float(at), 7.0)
    assert len(steps) == 1


def test_a_line_goes_on_as_it_went() -> None:
    steps = HistorySteps()
    for minute in range(61):
        steps.note(minute * 60.0, 100.0 - minute)
    assert steps.line(0.0, 3600.0, 3600.0) == pytest.approx(-20, abs=2)
    still = HistorySteps()
    still.note(0.0, 5.0)
    assert still.line(0.0, 3600.0, 7200.0) == pytest.approx(5.0)
    assert still.line(-10.0, 0.0, 60.0) is None


def test_sessions_that_are_deleted_are_forgotten() -> None:
    condition = Over("increase", s.RECONNECTS, 300.0)
    history = History([condition])
    views = {InstanceId(name): make_view(name) for name in ("a", "b")}
    list(history.note(views, Figures(), 1.0))
    assert len(history.of(s.RECONNECTS)) == 2
    del views[InstanceId("a")]
    list(history.note(views, Figures(), 2.0))
    assert set(history.of(s.RECONNECTS)) == {(("session", "b"),)}


MOVES = st.lists(
    st.tuples(st.integers(1, 90), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3))),
    min_size=1,
    max_size=25,
)


@given(MOVES, st.sampled_from(sorted(_FUNCTIONS)), st.sampled_from([30.0, 200.0]))
def test_the_shortcut_for_constant_series_gives_the_same_result(moves, function, seconds) -> None:
    condition = Over(function, s.RECONNECTS, seconds)
    history, now = History([condition]), 0.0
    for apart, counts in moves:
        now += apart
        views = {
            InstanceId(name): make_view(name, reconnects={"network": count})
            for name, count in counts.items()
        }
        list(history.note(views, Figures(), now))
    found = condition.vector(Sight(views, Figures(), history, now))
    each = {
        key: value
        for key, steps in history.of(s.RECONNECTS).items()
        if (value := _FUNCTIONS[function](steps, now - seconds, now)) is not None
    }
    assert found == each


def test_a_session_that_stays_as_it_is_costs_no_look_of_its_own(monkeypatch) -> None:
    looked = []
    wrapped = HistorySteps.increase
    monkeypatch.setitem(
        _FUNCTIONS, "increase", lambda *words: looked.append(words) or wrapped(*words)
    )
    condition = Over("increase", s.RECONNECTS, 60.0)
    history = History([condition])
    views = {InstanceId(f"s{number}"): make_view(f"s{number}") for number in range(100)}
    list(history.note(views, Figures(), 1.0))
    views[InstanceId("s7")] = make_view("s7", reconnects={"network": 2})
    list(history.note(views, Figures(), 16.0))
    found = condition.vector(Sight(views, Figures(), history, 16.0))
    assert (len(looked), found[(("session", "s7"),)], len(found)) == (1, 2.0, 100)
    list(history.note(views, Figures(), 300.0))
    assert set(condition.vector(Sight(views, Figures(), history, 300.0)).values()) == {0.0}
    assert len(looked) == 1, "what moved before the window stays now"


# --- conditions -------------------------------------------------------------------------------


def found(alert: str, **views: Any) -> set[str]:
    """The sessions of which it holds right now."""
    condition = TABLE[alert].condition
    history = History([condition])
    sight = Sight({InstanceId(name): view for name, view in views.items()}, Figures(), history, 0.0)
    return {dict(key)["session"] for key in condition.vector(sight)}


def test_a_session_that_should_be_connected_is_down_when_it_is_not() -> None:
    lost = make_view("a", status=ConnectionStatus.RECONNECTING)
    by_hand = replace(lost, desired=Desired(enabled=True, override=Override.STOPPED))
    started = replace(lost, desired=Desired(enabled=False, override=Override.STARTED))
    assert found("WaSessionDown", a=lost, b=make_view("b"), c=by_hand, d=started) == {"a", "d"}
    scan = make_view("e", status=ConnectionStatus.QR_REQUIRED)
    assert found("WaSessionDown", e=scan) == set()
    assert found("WaSessionNeedsScan", e=scan, a=lost) == {"e"}


def test_o10_a_session_that_flickers_between_its_code_and_reconnecting_is_down() -> None:
    condition, name = DOWN.condition, InstanceId("a")
    history = History([condition])
    held: list[float] = []
    for at in range(0, 1800, 15):
        codes = at // 120 % 2 == 0
        status = ConnectionStatus.QR_REQUIRED if codes else ConnectionStatus.RECONNECTING
        views = {name: make_view("a", status=status)}
        list(history.note(views, Figures(), float(at)))
        if condition.vector(Sight(views, Figures(), history, float(at))):
            held.append(float(at))
    assert held[-1] == 1785, "it holds at the end"
    longest = held[-1] - max((b for a, b in pairwise(held) if b - a > 15), default=held[0])
    assert longest >= DOWN.for_seconds


def test_of_a_backend_that_is_down_no_session_is_said_to_be_down() -> None:
    lost = make_view("a", status=ConnectionStatus.RECONNECTING)
    remote = replace(lost, instance=replace(lost.instance, settings={"backend": "evo"}))
    views = {InstanceId("here"): lost, InstanceId("there"): remote}

    def down(*, up: bool) -> set[Any]:
        figures = Figures(backends={"evo": up, "other": False})
        return set(DOWN.condition.vector(Sight(views, figures, History([]), 0.0)))

    here = (("engine", "sandbox"), ("session", "here"))
    there = (("backend", "evo"), ("engine", "sandbox"), ("session", "there"))
    assert down(up=True) == {here, there}
    assert down(up=False) == {here}


@pytest.mark.parametrize("code", [row[0] for row in reasons_table()])
def test_every_reason_that_only_a_person_ends_is_given_up(code: str) -> None:
    from agent.core.reasons import reason_of

    reason = reason_of(code)
    health = Health.DEGRADED if reason.slow else Health.DISCONNECTED
    verdict = HealthVerdict(health, reason.status, code, "")
    view = make_view("a", status=ConnectionStatus.DISCONNECTED, verdict=verdict)
    assert bool(found("WaSessionGivenUp", a=view)) is reason.hopeless


@pytest.mark.parametrize(
    ("ending", "given_up"),
    [
        (None, False),
        (Ending.NOT_YET, False),
        (Ending.RECOVERED, False),
        (Ending.GAVE_UP, True),
        (Ending.NEEDS_PERSON, True),
    ],
)
def test_a_reason_with_a_step_of_the_ladder_is_not_given_up(
    ending: Ending | None, given_up: bool
) -> None:
    for code in ("session_damaged", "session_missing", "unpaired_suspect"):
        verdict = HealthVerdict(Health.CORRUPTED, ConnectionStatus.AUTH_FAILURE, code, "")
        last = ending and replace(begin_repair(verdict, Goal.HEAL, 1.0), ending=ending)
        repair = begin_repair(verdict, Goal.HEAL, 1.0) if ending is Ending.NOT_YET else last
        view = make_view(
            "a", status=ConnectionStatus.AUTH_FAILURE, verdict=verdict, repair=repair or None
        )
        assert bool(found("WaSessionGivenUp", a=view)) is given_up


@pytest.mark.parametrize("to_lose", [True, False])
def test_a_repair_that_begins_again_by_itself_has_not_given_up(to_lose: bool) -> None:
    state = ConnectionStatus.INITIALIZING
    verdict = HealthVerdict(Health.STUCK, state, "state_stuck", "", should_cleanup=not to_lose)
    repair = replace(begin_repair(verdict, Goal.WORKING_QR, 1.0), ending=Ending.GAVE_UP)
    view = make_view("a", status=state, verdict=verdict, repair=repair)
    assert bool(found("WaSessionGivenUp", a=view)) is to_lose


def test_division_by_nothing_is_no_alert_and_no_error() -> None:
    zero = Series("zero", of_agent=lambda _: {(): 0.0})
    one = Series("one", of_agent=lambda _: {(): 1.0})
    sight = Sight({}, Figures(), History([]), 0.0)
    assert Binary(Binary(zero, "/", zero), ">", 0.1).vector(sight) == {}
    assert Binary(Binary(one, "/", zero), ">", 0.1).vector(sight) == {(): math.inf}


def test_without_sessions_nothing_is_counted() -> None:
    sight = Sight({}, Figures(), History([]), 0.0)
    assert Fold("count", s.WANTED).vector(sight) == {}
    assert Absent(s.WANTED).vector(sight) == {(): 1.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300, "5m"), (90, "90s"), (0.25, "250ms"), (86400, "1d"), (7200, "2h"), (5, "5s")],
)
def test_durations_are_prometheus_own(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- pending, firing, over --------------------------------------------------------------------


def step(
    active: dict[Any, ActiveAlert], now: float, *, holds: bool, alert: Alert = DOWN, **more: float
) -> tuple[dict[Any, ActiveAlert], list[str]]:
    vector = {SALES: 1.0} if holds else {}
    following, changes = advance(active, [(alert, vector)], now, **more)
    return following, [change.kind for change in changes]


def test_an_alert_waits_fires_once_and_is_over_once() -> None:
    active: dict[Any, ActiveAlert] = {}
    told = []
    for now, holds in ((0, True), (299, True), (300, True), (900, True), (960, False)):
        active, said = step(active, float(now), holds=holds)
        told.append((now, said))
    assert [(now, said) for now, said in told if said] == [(300, ["alert"]), (960, ["alert_over"])]
    (one,) = active.values()
    assert (one.state, one.fired_at, one.over_at) == (AlertState.RESOLVED, 300.0, 960.0)
    active, said = step(active, 960.0 + 899, holds=False)
    assert active
    active, said = step(active, 960.0 + 900, holds=False)
    assert (active, said) == ({}, [])


def test_a_condition_that_was_interrupted_waits_its_whole_time_again() -> None:
    active, _ = step({}, 0.0, holds=True)
    active, _ = step(active, 200.0, holds=False)
    assert active == {}
    active, said = step(active, 400.0, holds=True)
    assert said == []
    active, said = step(active, 699.0, holds=True)
    assert said == []


def test_an_alert_that_is_over_may_fire_again() -> None:
    active, _ = step({}, 0.0, holds=True)
    active, _ = step(active, 300.0, holds=True)
    active, _ = step(active, 310.0, holds=False)
    active, said = step(active, 320.0, holds=True)
    assert (next(iter(active.values())).state, said) == (AlertState.PENDING, [])
    active, said = step(active, 620.0, holds=True)
    assert said == ["alert"]


def test_patience_stretches_and_shortens() -> None:
    active, _ = step({}, 0.0, holds=True, patience=0.01)
    assert step(active, 3.0, holds=True, patience=0.01)[1] == ["alert"]
    assert step(active, 300.0, holds=True, patience=2.0)[1] == []
    at_once = TABLE["WaSessionGivenUp"]
    assert step({}, 0.0, holds=True, alert=at_once)[1] == ["alert"]


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=30))
def test_beginnings_and_ends_take_turns(moments: list[tuple[int, bool]]) -> None:
    active: dict[Any, ActiveAlert] = {}
    now, told = 0.0, []
    for wait, holds in moments:
        now += wait
        active, said = step(active, now, holds=holds)
        told += said
    assert told == ["alert", "alert_over"] * (len(told) // 2) + ["alert"] * (len(told) % 2)


# --- who says it for whom ---------------------------------------------------------------------


def firing(name: str, **labels: str) -> ActiveAlert:
    key = tuple(sorted(labels.items()))
    return ActiveAlert(TABLE[name], key, AlertState.FIRING, 0.0, 1.0, fired_at=0.0)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("WaSessionDown", {"status": ConnectionStatus.RECONNECTING}),
        ("WaCircuitOpen", {"circuit": "open"}),
    ],
)
def test_an_incident_silences_its_members_only(name: str, more: dict[str, Any]) -> None:
    views = {
        InstanceId("member"): make_view("member", in_incident=True, **more),
        InstanceId("alone"): make_view("alone", **more),
    }
    sight = Sight(views, Figures(incidents={"sandbox": True}), History([]), 0.0)
    found = TABLE[name].condition.vector(sight)
    assert [dict(key)["session"] for key in found] == ["alone"]
    own = firing("WaFleetIncident", engine="sandbox")
    assert silenced([own, *(firing(name, **dict(key)) for key in found)]) == {}


def test_o9_a_session_that_is_down_with_an_open_circuit_raises_one_alert() -> None:
    down = firing("WaSessionDown", session="a", engine="web")
    circuit = firing("WaCircuitOpen", session="a", engine="web")
    others = firing("WaCircuitOpen", session="b", engine="web")
    assert silenced([down, circuit, others]) == {(circuit.name, circuit.labels): "WaSessionDown"}


def test_a_backend_that_is_down_silences_alerts_of_its_sessions_only() -> None:
    backend = firing("WaBackendDown", backend="evo")
    its = firing("WaSessionGivenUp", session="a", engine="evolution", backend="evo")
    others = firing("WaSessionGivenUp", session="b", engine="evolution", backend="evo2")
    here = firing("WaSessionGivenUp", session="c", engine="web")
    assert silenced([backend, its, others, here]) == {(its.name, its.labels): "WaBackendDown"}


@pytest.mark.parametrize("source", ["WaBackendDown", "WaAgentDown"])
@pytest.mark.parametrize(
    "name", [name for name in TABLE if "{session}" in TABLE[name].summary and name != LOST]
)
def test_every_alert_of_a_session_says_whose_it_is_and_can_be_silenced(
    name: str, source: str
) -> None:
    assert {"engine", "backend"} <= TABLE[name].condition.labels
    whose = {"engine": "evolution", "backend": "evo"}
    away = firing(source, **({"backend": "evo"} if source == "WaBackendDown" else {}))
    its = firing(name, session="a", **whose)
    assert silenced([away, its]) == {(its.name, its.labels): source}


def test_lost_messages_are_told_whatever_else_is_down() -> None:
    """Those of a session that is down explain nothing of it: what it dropped is gone for good."""
    lost = firing(LOST, session="a", engine="evolution", backend="evo")
    every = [
        firing(name, session="a", engine="evolution", backend="evo")
        for name in TABLE
        if name != LOST
    ]
    assert (lost.name, lost.labels) not in silenced([lost, *every])


def test_a_pending_alert_silences_no_other() -> None:
    waits = replace(firing("WaSessionsCorruptedTogether"), state=AlertState.PENDING)
    single = firing("WaSessionCorrupted", session="a")
    assert silenced([waits, single]) == {}
    fires = replace(waits, state=AlertState.FIRING)
    assert silenced([fires, single]) == {(single.name, single.labels): fires.name}


def test_nothing_silences_itself_or_the_switch() -> None:
    every = [firing(name, session="a", engine="web") for name in TABLE]
    quiet = silenced(every)
    assert "WaDeadMansSwitch" not in {name for name, _ in quiet}
    for rule in INHIBITIONS:
        assert rule.source not in rule.silences
    critical = [one for one in every if one.alert.severity is Severity.CRITICAL]
    assert any((one.name, one.labels) not in quiet for one in critical)


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123456, Unit.SHARE, "12.35%"),
        (math.inf, Unit.SHARE, "+Inf"),
        (8.0, Unit.SECONDS, "8s"),
        (0.25, Unit.SECONDS, "250ms"),
        (75.0, Unit.SECONDS, "1m 15s"),
        (3723.0, Unit.SECONDS, "1h 2m 3s"),
        (90061.0, Unit.SECONDS, "1d 1h 1m 1s"),
        (5 * 1024 * 1024.0, Unit.BYTES, "5Mi"),
        (3.0, Unit.PLAIN, "3"),
        (12345.0, Unit.PLAIN, "12.35k"),
        (0.0, Unit.PLAIN, "0"),
        (0.002, Unit.PLAIN, "2m"),
        (math.nan, Unit.PLAIN, "NaN"),
    ],
)
def test_values_are_written_for_people(value: float, unit: Unit, text: str) -> None:
    assert show_value(value, unit) == text


def test_every_summary_can_be_said() -> None:
    for alert in TABLE.values():
        said = summarize(alert, (("backend", "evo"), ("engine", "web"), ("session", "sales")), 0.5)
        assert "{" not in said
        assert said


@pytest.mark.parametrize(
    ("name", "labels", "text"),
    [
        ("WaSessionDown", SALES, "WaSessionDown is over for sales, after 3m 20s"),
        ("WaBackendDown", (("backend", "evo"),), "WaBackendDown is over for evo, after 3m 20s"),
        ("WaHostCpuHigh", (), "WaHostCpuHigh is over, after 3m 20s"),
    ],
)
def test_the_sentence_of_a_resolved_alert_is_in_the_past(
    name: str, labels: tuple[tuple[str, str], ...], text: str
) -> None:
    fires = ActiveAlert(TABLE[name], labels, AlertState.FIRING, 0.0, 0.9, 60.0)
    assert fires.news.startswith(f"{name}: ")
    over = replace(fires, state=AlertState.RESOLVED, over_at=260.0)
    assert over.news == text
