"""/metrics: what it names, well formed for every reader, and closed to foreign labels."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from agent.core.figures import COUNTS, StatusTime
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.model import ConnectionStatus as CS
from agent.core.reasons import reasons_table
from agent.core.session import BackendView
from agent.core.words import ServerClaim
from agent.metrics.exporter import Exporter, Family, backend_families, render
from tests.fakes.supervisor import FakeSupervisor, make_view

NOW = 1_800_000_000.0
BOOT = 5_000.0
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SESSION = (
    "info wanted status verdict proof_timestamp_seconds uptime_seconds memory_bytes"
    " memory_limit_bytes circuit status_seconds_total messages_total"
    " errors_total cpu_seconds_total reconnects_total restarts_total crypto_operations_total"
    " repairs_total response_time_seconds"
)
AGENT = (
    "info sessions last_pass_age_seconds incident_active pass_duration_seconds http_requests_total"
)
OTHERS = (
    "wa_backend_up wa_backend_sessions wa_host_memory_total_bytes wa_host_memory_used_bytes"
    " wa_host_cpu_usage_ratio wa_host_filesystem_avail_bytes process_resident_memory_bytes"
    " process_open_fds process_max_fds process_start_time_seconds"
)
SUMMARIES = "wa_session_response_time_seconds wa_agent_pass_duration_seconds"


class House:
    def __init__(self, folder: Path) -> None:
        self.supervisor = FakeSupervisor()
        self.status = self.supervisor.status()
        self.exporter = Exporter(
            self.supervisor.views,
            lambda: self.status,
            [folder],
            lambda: backend_families([BackendView("evo", "evolution", "", ServerClaim(False))]),
        )

    def put(self, id: str, **more: object) -> None:
        self.supervisor.known[InstanceId(id)] = make_view(
            id, **{"at": BOOT, "at_wall": NOW, **more}
        )  # type: ignore[arg-type]

    def text(self) -> bytes:
        return render(self.exporter.families())

    def families(self) -> Iterable[Metric]:
        return parse(self.text().decode())

    def samples(self) -> Samples:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families()
            for sample in family.samples
        }


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_names_and_types_stay_and_prometheus_own_checker_has_nothing_to_say(house: House) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "the Debian package prometheus brings it; scripts/test installs it"
    for id in ("a", "b"):
        house.put(id, memory_bytes=1, cpu_seconds=1.0, connected_since_wall=NOW)
    house.status = house.status | {"last_pass_age_seconds": 1.0, "incidents": {"web": "zombie"}}
    with house.exporter.http.observe("GET") as seen:
        seen.code = 200
    names = [f"wa_session_{name}" for name in SESSION.split()]
    names += [*(f"wa_agent_{name}" for name in AGENT.split()), *OTHERS.split()]
    kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in names}
    kinds |= dict.fromkeys(SUMMARIES.split(), "summary")
    expected = {name.removesuffix("_total"): kind for name, kind in kinds.items()}
    found = list(house.families())
    assert len(found) == len(expected), "each is printed once"
    assert {family.name: family.type for family in found} == expected
    labels = {label for family in found for sample in family.samples for label in sample.labels}
    assert "instance" not in labels, "Prometheus owns it"
    checked = [promtool, "check", "metrics"]
    done = subprocess.run(checked, input=house.text(), capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_all_lines_of_a_connected_session(house: House) -> None:
    house.put(
        "a",
        status_since_wall=NOW - 50,
        connected_since_wall=NOW - 50,
        status_time=StatusTime(CS.CONNECTED, BOOT - 50, {CS.CONNECTED: 100.0, CS.LOADING: 2.5}),
        restarts={"watchdog": 2},
        messages={"in": 5, "out": 3, "ack": 2},
        probes=4,
        probe_seconds=0.5,
        proof_age=2.0,
    )
    found = house.samples()
    assert of(found, "wa_session_status", session="a", status="connected") == 1
    assert of(found, "wa_session_status", session="a", status="loading") == 0
    assert of(found, "wa_session_verdict", session="a", verdict="healthy") == 1
    assert of(found, "wa_session_uptime_seconds", session="a") == 50
    assert of(found, "wa_session_status_seconds_total", session="a", status="connected") == 150
    assert of(found, "wa_session_status_seconds_total", session="a", status="loading") == 2.5
    assert of(found, "wa_session_restarts_total", session="a", reason="watchdog") == 2
    assert of(found, "wa_session_proof_timestamp_seconds", session="a") == NOW - 2
    assert of(found, "wa_session_response_time_seconds_sum", session="a") == 0.5
    assert of(found, "wa_session_messages_total", session="a", direction="out", result="sent") == 3
    assert of(found, "wa_agent_sessions", status="connected") == 1
    assert sum(v for (n, _), v in found.items() if n == "wa_session_status") == 1


def test_a_clock_that_was_set_back_shows_no_time_that_shrinks(house: House) -> None:
    later = {"status_since_wall": NOW + 60, "connected_since_wall": NOW + 60}
    house.put("a", **later, status_time=StatusTime(CS.CONNECTED, BOOT + 60, {CS.CONNECTED: 7.25}))
    found = house.samples()
    assert of(found, "wa_session_uptime_seconds", session="a") == 0
    assert of(found, "wa_session_status_seconds_total", session="a", status="connected") == 7.25


def test_counters_are_there_at_zero_from_the_first_moment(house: House) -> None:
    house.put("a", status=ConnectionStatus.DISCONNECTED, memory_bytes=None, proof_age=None)
    found = house.samples()
    for word in COUNTS["restarts"]:
        assert of(found, "wa_session_restarts_total", session="a", reason=word) == 0
    for row in reasons_table():
        assert of(found, "wa_session_errors_total", session="a", kind=row[0]) == 0
    assert of(found, "wa_session_uptime_seconds", session="a") == 0
    assert not [key for key in found if key[0] == "wa_session_memory_bytes"]


def test_f74_unknown_words_are_counted_together(house: House) -> None:
    house.put("a", errors={f"invented_{n}": 1 for n in range(500)} | {"logout": 2})
    found = house.samples()
    assert of(found, "wa_session_errors_total", session="a", kind="other") == 500
    assert of(found, "wa_session_errors_total", session="a", kind="logout") == 2
    assert len([key for key in found if key[0] == "wa_session_errors_total"]) < 80


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_f73_no_label_value_breaks_out_of_its_line(value: str) -> None:
    text = render([Family("x", "meaning", [({"a": value}, 1)])])
    assert text.count(b"\n") == 3
    if value.isprintable():
        (family,) = parse(text.decode())
        assert family.samples[0].labels == {"a": value}
