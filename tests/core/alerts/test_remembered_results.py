"""A look that remembers the last one finds what a look without any memory finds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.alerts import alert_table
from agent.core.alerts import (
    Alert,
    AlertPolicy,
    Figures,
    History,
    Readings,
    Results,
    Sight,
    shared,
)
from agent.core.alerts import series as s
from agent.core.alerts.expression import Binary, OfSession
from agent.core.alerts.history import HistorySteps
from agent.core.alerts.reading import _FUNCTIONS, Over
from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from agent.core.view import InstanceView
from tests.fakes.supervisor import make_view

TABLE = alert_table(AlertPolicy(availability=0.99, corrupted_together=2, ended_together=2))
"""With limits that two sessions reach."""
OVERS = tuple(
    Over(function, series, seconds, offset)
    for function in sorted(_FUNCTIONS)
    for series, seconds, offset in (
        (s.RECONNECTS, 30.0, 0.0),
        (s.MEMORY, 100.0, 0.0),
        (s.MEMORY, 60.0, 40.0),
    )
)
"""Windows so short that a few looks pass them."""

COUNT = st.integers(0, 3)
CHANGED: Mapping[str, st.SearchStrategy[Any]] = {
    "status": st.sampled_from(
        [ConnectionStatus.CONNECTED, ConnectionStatus.RECONNECTING, ConnectionStatus.QR_REQUIRED]
    ),
    "circuit": st.sampled_from(["open", "closed"]),
    "in_incident": st.booleans(),
    "memory_bytes": st.none() | st.integers(1, 9).map(lambda share: share << 22),
    "memory_limit": st.sampled_from([0, 10 << 22]),
    "reconnects": COUNT.map(lambda n: {"network": n * 4}),
    "restarts": COUNT.map(lambda n: {"watchdog": n}),
    "errors": COUNT.map(lambda n: {"network": n, "logged_out": n}),
    "messages": COUNT.map(lambda n: {"in": n}),
    "crypto_operations": st.just({}) | COUNT.map(lambda n: {"ok": n, "failed": n}),
    "probes": COUNT,
    "probe_seconds": st.floats(0, 40, allow_nan=False),
    "reason": st.sampled_from(["", "temporary_ban", "client_outdated"]),
    "health": st.sampled_from([Health.HEALTHY, Health.CORRUPTED]),
    "backend": st.sampled_from(["", "evo"]),
}
CHANGES = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.fixed_dictionaries({}, optional=CHANGED)
)  # type: ignore[arg-type]
"""By session; None: it is deleted. A session that is not named has the same view as before."""
LOOKS = st.lists(
    st.tuples(st.integers(0, 400), CHANGES, st.booleans(), st.integers(0, 3)),
    min_size=2,
    max_size=14,
)


def view_of(id: str, fields: Mapping[str, Any]) -> InstanceView:
    more = {name: value for name, value in fields.items() if name not in ("health", "backend")}
    view = make_view(id, **more)
    if "health" in fields:
        verdict = HealthVerdict(fields["health"], view.status, "session_damaged", "")
        view = replace(view, verdict=verdict)
    if backend := fields.get("backend"):
        view = replace(view, instance=replace(view.instance, settings={"backend": backend}))
    return view


def look(
    table: tuple[Alert, ...], views: Any, figures: Figures, now: float, memory: Any
) -> dict[str, Any]:
    history, readings, results = memory
    list(history.note(views, figures, now, readings))
    sight = Sight(views, figures, history, now, now, readings, results)
    found: dict[str, Any] = {one.name: one.condition.vector(sight) for one in table}
    found |= {repr(over): dict(over.vector(sight)) for over in OVERS}
    readings.end_look()
    return found


@settings(deadline=None, max_examples=150)
@given(LOOKS, st.sampled_from([1, 2, 3]))
def test_what_is_remembered_is_what_is_computed_from_the_whole(looks: Any, every: int) -> None:
    pool: dict[object, Any] = {}
    table = tuple(replace(one, condition=shared(one.condition, pool)) for one in TABLE)
    conditions = [*(one.condition for one in TABLE), *OVERS]
    whole, now = History(conditions), 0.0
    memory = History(conditions), Readings(), Results()
    known: dict[InstanceId, InstanceView] = {}
    fields: dict[str, Any] = {}
    for number, (apart, changes, up, count) in enumerate(looks):
        now += apart
        for id, change in changes.items():
            fields[id] = {**fields.get(id, {}), **change} if change is not None else {}
            known.pop(InstanceId(id), None)
            if change is not None:
                known[InstanceId(id)] = view_of(id, fields[id])
        figures = Figures(
            backends={"evo": up}, requests=count * 10.0, requests_failed=float(count),
            incidents={"sandbox": not up}, disk_size=100.0, disk_available=100.0 - 30 * count,
        )  # fmt: skip
        nothing = whole, Readings(), Results()
        expected = look(TABLE, dict(known), figures, now, nothing)
        # An alert may be off at some looks; its parts may be read by others meanwhile.
        some = table if number % every == 0 else table[::2]
        found = look(some, dict(known), figures, now, memory)
        assert {name: repr_of(found[name]) for name in found} == {
            name: repr_of(expected[name]) for name in found
        }


def repr_of(vector: Mapping[Any, float]) -> dict[Any, str]:
    """As text: what is no number is itself, too."""
    return {key: repr(float(value)) for key, value in vector.items()}


def test_a_session_with_the_same_view_is_not_read_again() -> None:
    read: list[str] = []
    series = replace(s.WANTED, of_session=lambda view: read.append(view.instance.id) or 1.0)
    readings, figures = Readings(), Figures()
    views = {InstanceId(name): make_view(name) for name in "abc"}
    first = readings.of(series, views, figures)
    assert readings.of(series, views, figures) is first
    later = {**views, InstanceId("b"): make_view("b")}
    assert readings.of(series, later, Figures()) is first, "the same values are the same object"
    assert read == ["a", "b", "c", "b"]
    del later[InstanceId("a")]
    assert len(readings.of(series, dict(later), figures)) == 2


def test_a_condition_is_computed_again_only_where_its_parts_changed(monkeypatch: Any) -> None:
    computed: list[str] = []
    combine = Binary.combine

    def noted(self: Binary, *vectors: Any) -> Any:
        computed.append(self.sign)
        return combine(self, *vectors)

    monkeypatch.setattr(Binary, "combine", noted)
    moved = Binary(Over("increase", s.RECONNECTS, 60.0), ">", 2.0)
    pool: dict[object, Any] = {}
    conditions = [
        shared(OfSession(Binary(moved, "unless", Binary(s.IN_INCIDENT, "==", 1.0))), pool),
        shared(Binary(moved, "and", moved), pool),
    ]
    history, memory = History(conditions), (Readings(), Results())

    def vectors(now: float, *views: InstanceView) -> list[Any]:
        known, figures = {view.instance.id: view for view in views}, Figures()
        list(history.note(known, figures, now, memory[0]))
        sight = Sight(known, figures, history, now, now, *memory)
        return [condition.vector(sight) for condition in conditions]

    still, quiet = make_view("a"), make_view("b")
    vectors(0.0, still, quiet)
    assert sorted(computed) == ["==", ">", "and", "unless"], "what two conditions share, once"
    computed.clear()
    vectors(15.0, make_view("a"), quiet)
    assert computed == [], "another view with the same values"
    busy = make_view("a", reconnects={"network": 3})
    assert [len(vector) for vector in vectors(30.0, busy, quiet)] == [1, 1]
    assert sorted(computed) == [">", "and", "unless"]


def test_a_window_is_measured_again_only_where_a_value_enters_or_leaves(monkeypatch: Any) -> None:
    measured: list[float] = []
    wrapped = HistorySteps.increase

    def noted(steps: HistorySteps, start: float, end: float) -> float | None:
        measured.append(end)
        return wrapped(steps, start, end)

    monkeypatch.setitem(_FUNCTIONS, "increase", noted)
    over = Over("increase", s.RECONNECTS, 60.0)
    history, memory = History([over]), (Readings(), Results())
    found = []
    for now, count in ((0, 0), (15, 2), (30, 2), (45, 3), (60, 3), (75, 3), (90, 3), (105, 3)):
        views = {InstanceId("a"): make_view("a", reconnects={"network": count})}
        list(history.note(views, Figures(), float(now), memory[0]))
        sight = Sight(views, Figures(), history, float(now), 0.0, *memory)
        found += over.vector(sight).values()
    assert found == [0.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 0.0]
    assert measured == [15.0, 45.0, 75.0]
