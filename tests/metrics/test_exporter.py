"""/metrics: well formed for every reader, cheap when little changed, closed to foreign labels."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.figures.session_figures import COUNTS
from agent.core.figures.time_in_status import StatusTime
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.model import ConnectionStatus as CS
from agent.core.reasons import reasons_table
from agent.core.view import BackendView, InstanceView
from agent.metrics.exporter import Exporter, SessionLines
from agent.metrics.sessions import FAMILIES
from agent.metrics.text import escape, number, wants_openmetrics
from tests.fakes.supervisor import FakeSupervisor, make_view

NOW = 1_800_000_000.0
BOOT = 5_000.0
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def house(tmp_path: Path) -> tuple[FakeSupervisor, Exporter]:
    supervisor = FakeSupervisor()
    return supervisor, Exporter(
        supervisor.views, supervisor.status, tmp_path, wall=lambda: NOW, boot=lambda: BOOT
    )


def put(supervisor: FakeSupervisor, id: str, **more: object) -> InstanceView:
    view = make_view(id, **more)  # type: ignore[arg-type]
    supervisor.known = {**supervisor.known, InstanceId(id): view}
    return view


def samples(exporter: Exporter) -> Samples:
    text = exporter.render()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_plain(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_prometheus_own_checker_has_nothing_to_say(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "the Debian package prometheus brings it; scripts/test installs it"
    supervisor, exporter = house
    for id in ("a", "b"):
        put(supervisor, id)
    with exporter.http.observe("GET") as seen:
        seen.code = 200
    exporter.backends = lambda: [BackendView("evo", "evolution", "http://a", checked_wall=NOW)]
    exporter.render()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exporter.render()[0], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_both_formats_are_understood_by_the_client_librarys_parsers(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    supervisor, exporter = house
    put(supervisor, "a")
    with exporter.http.observe("GET") as seen:
        seen.route, seen.code = "/api/instance/{id}", 200
    plain, plain_type = exporter.render("text/plain")
    strict, strict_type = exporter.render("application/openmetrics-text; version=1.0.0")
    assert "version=0.0.4" in plain_type
    assert strict_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(strict.decode())}
    assert {family.name for family in parse_plain(plain.decode())} == names
    assert "wa_session_restarts" in names


def test_every_family_is_printed_once_and_no_label_is_called_instance(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    supervisor, exporter = house
    for id in ("a", "b", "c"):
        put(supervisor, id)
    text = exporter.render()[0].decode()
    heads = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    assert "instance=" not in text
    assert "_created" not in text


def test_all_lines_of_a_connected_session(house: tuple[FakeSupervisor, Exporter]) -> None:
    supervisor, exporter = house
    put(
        supervisor,
        "a",
        status_since_wall=NOW - 50,
        connected_since_wall=NOW - 50,
        status_time=StatusTime(CS.CONNECTED, BOOT - 50, {CS.CONNECTED: 100.0, CS.LOADING: 2.5}),
        restarts={"watchdog": 2},
        messages={"in": 5, "out": 3, "ack": 2},
        probes=4,
        probe_seconds=0.5,
        seen_wall=NOW - 1,
        proof_age=2.0,
    )
    found = samples(exporter)
    assert of(found, "wa_session_status", session="a", status="connected") == 1
    assert of(found, "wa_session_status", session="a", status="loading") == 0
    assert of(found, "wa_session_verdict", session="a", verdict="healthy") == 1
    assert of(found, "wa_session_uptime_seconds", session="a") == 50
    assert of(found, "wa_session_status_seconds_total", session="a", status="connected") == 150
    assert of(found, "wa_session_status_seconds_total", session="a", status="loading") == 2.5
    assert of(found, "wa_session_restarts_total", session="a", reason="watchdog") == 2
    assert of(found, "wa_session_proof_timestamp_seconds", session="a") == NOW - 3
    assert of(found, "wa_session_response_time_seconds_sum", session="a") == 0.5
    sent = of(found, "wa_session_messages_total", session="a", direction="out", result="sent")
    assert sent == 3
    assert of(found, "wa_agent_sessions", status="connected") == 1
    assert sum(v for (n, _), v in found.items() if n == "wa_session_status") == 1


def test_a_clock_that_was_set_back_shows_no_time_that_shrinks(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    supervisor, exporter = house
    later = {"status_since_wall": NOW + 60, "connected_since_wall": NOW + 60}
    put(supervisor, "a", **later, status_time=StatusTime(CS.CONNECTED, BOOT, {CS.CONNECTED: 7.25}))
    found = samples(exporter)
    assert of(found, "wa_session_uptime_seconds", session="a") == 0
    assert of(found, "wa_session_status_seconds_total", session="a", status="connected") == 7.25


def test_counters_are_there_at_zero_from_the_first_moment(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    supervisor, exporter = house
    put(supervisor, "a", status=ConnectionStatus.DISCONNECTED, memory_bytes=None, proof_age=None)
    found = samples(exporter)
    for row in COUNTS:
        for word in row.words:
            assert of(found, row.metric, session="a", **{row.label: word}) == 0
    for row in reasons_table():
        assert of(found, "wa_session_errors_total", session="a", kind=row[0]) == 0
    assert of(found, "wa_session_uptime_seconds", session="a") == 0
    assert not [key for key in found if key[0] == "wa_session_memory_bytes"]


def test_f74_unknown_words_are_counted_together(
    house: tuple[FakeSupervisor, Exporter],
) -> None:
    supervisor, exporter = house
    put(supervisor, "a", errors={f"invented_{n}": 1 for n in range(500)} | {"logout": 2})
    found = samples(exporter)
    assert of(found, "wa_session_errors_total", session="a", kind="other") == 500
    assert of(found, "wa_session_errors_total", session="a", kind="logout") == 2
    assert len([key for key in found if key[0] == "wa_session_errors_total"]) < 80


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["put", "drop", "change", "scrape"])),
        max_size=25,
    )
)
def test_cached_lines_equal_fresh_ones_whichever_sessions_come_and_go(
    steps: list[tuple[str, str]],
) -> None:
    views: dict[InstanceId, InstanceView] = {}
    kept = SessionLines()
    for id, step in steps:
        views = dict(views)
        if step == "drop":
            views.pop(InstanceId(id), None)
        elif step == "put" or (step == "change" and InstanceId(id) in views):
            views[InstanceId(id)] = make_view(id, memory_bytes=len(views) ** 9)
        kept.update(views)
        if step == "scrape":
            list(kept.samples(NOW, BOOT))
    kept.update(views)
    fresh = SessionLines()
    fresh.update(views)
    assert list(kept.samples(NOW, BOOT)) == list(fresh.samples(NOW, BOOT))
    assert len(list(kept.samples(NOW, BOOT))) == len(FAMILIES) + 2


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", True),
        ("text/plain;q=0.9,application/openmetrics-text;q=0.1", False),
    ],
)
def test_the_format_follows_the_accept_header(accept: str, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_f73_no_label_value_breaks_out_of_its_line(value: str) -> None:
    line = f'# TYPE x gauge\nx{{a="{escape(value)}"}} 1\n'
    line.encode()
    assert "\n" not in escape(value)
    if value.isprintable():
        (family,) = parse_plain(line)
        assert family.samples[0].labels == {"a": value}


@given(st.floats() | st.integers(-(10**18), 10**18))
def test_every_number_can_be_read_back(value: float) -> None:
    read = float(number(value))
    assert read == pytest.approx(value, abs=1e-6, nan_ok=True)


def test_counts_of_a_killed_agent_stay_out_of_the_counters(
    house: tuple[FakeSupervisor, Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, exporter = house
    before = RepairStatistics(checked=90, check_seconds=9.0, repaired=5, failed=2)
    now = replace(before, checked=100, check_seconds=10.0, repaired=6)
    status = replace(supervisor.status(), repairs=now, repairs_before=before)
    monkeypatch.setattr(exporter, "_status", lambda: status)
    found = samples(exporter)
    assert of(found, "wa_agent_repairs_total", outcome="repaired") == 1
    assert of(found, "wa_agent_repairs_total", outcome="failed") == 0
    assert of(found, "wa_agent_check_duration_seconds_count", check="health") == 10
