"""The whole of it on a booted machine: what the agent promises about faults, kept."""

import json
from collections.abc import Iterator

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet, traffic

IDS = ("s1", "s2", "s3")


@pytest.fixture
def fleet(bed: Bed) -> Fleet:
    fleet = Fleet(bed, IDS)
    fleet.make()
    return fleet


def test_after_a_reboot_all_are_connected_by_themselves_without_a_scan(bed: Bed, fleet: Fleet):
    accounts = fleet.accounts()
    bed.reboot()
    fleet.until_connected()
    assert fleet.accounts() == accounts
    for id in IDS:
        assert fleet.events(id).count("paired") == 1

    # At the power off all workers have closed before the agent was stopped.
    told = bed.journal("-b", "-1", "-o", "json", "--output-fields=_SYSTEMD_UNIT,UNIT,MESSAGE")
    lines = [json.loads(line) for line in told.splitlines()]

    def when(unit: str, words: str) -> int:
        """Microseconds of that boot at the last line of or about the unit with these words."""
        said = [
            int(line["__MONOTONIC_TIMESTAMP"])
            for line in lines
            if unit in (line.get("UNIT"), line.get("_SYSTEMD_UNIT"))
            and words in str(line.get("MESSAGE"))
        ]
        assert said, f"{unit} never said {words!r}"
        return said[-1]

    agent_stops = when(AGENT, "Stopping ")
    for id in IDS:
        assert when(fleet.unit(id), "closed in order") < agent_stops, id
        assert when(fleet.unit(id), "Stopped ") < agent_stops, id


def test_f01_an_agent_that_restarts_touches_no_session_and_loses_no_request(bed: Bed, fleet: Fleet):
    runs, pid = fleet.runs(), bed.show(AGENT, "MainPID")
    with traffic(bed) as seen:
        bed.until(lambda: seen.answered > 20)
        bed.run("systemctl", "restart", AGENT)
        bed.until(lambda: bed.show(AGENT, "MainPID") not in ("0", pid))
        fleet.until_connected()
        before = seen.answered
        bed.until(lambda: seen.answered > before + 20)
    assert fleet.runs() == runs
    assert seen.unanswered == []


def test_a_stop_of_the_agent_saves_and_closes_in_order_and_stays_stopped(bed: Bed, fleet: Fleet):
    accounts, run = fleet.accounts(), bed.show(AGENT, "InvocationID")
    with traffic(bed) as seen:
        bed.run("systemctl", "stop", AGENT, within=120)
        before = len(seen.unanswered)
        # Requests go on meanwhile: none of them may start it again.
        bed.until(lambda: len(seen.unanswered) > before + 50)
        assert bed.show(AGENT, "ActiveState") == "inactive"
        assert bed.show("wa-agent.socket", "ActiveState") == "inactive"
    assert set(fleet.states().values()) == {"inactive"}
    assert {bed.show(fleet.unit(id), "Result") for id in IDS} == {"success"}
    said = bed.journal_of(run)
    steps = ["schedules stopped", "to prepare", "save ", "closed 3 workers", "database closed"]
    places = [said.rfind(step) for step in steps]
    assert -1 not in places, said
    assert places == sorted(places), said
    bed.run("systemctl", "start", AGENT)
    fleet.until_connected()
    assert fleet.accounts() == accounts


def test_a_session_that_an_operator_stops_stays_stopped_until_started(bed: Bed, fleet: Fleet):
    bed.run("systemctl", "stop", fleet.unit("s3"))
    bed.run("wa-agent", "--json", "list")
    bed.until(lambda: fleet.list()["s3"]["override"] == "stopped")
    bed.run("systemctl", "restart", AGENT)
    bed.until(lambda: fleet.statuses()["s1"] == "CONNECTED")
    bed.try_run("wa-agent", "health", "s3")  # a whole pass of its own
    assert bed.show(fleet.unit("s3"), "ActiveState") == "inactive"
    assert fleet.list()["s3"]["enabled"] is True
    bed.run("systemctl", "start", fleet.unit("s3"))
    fleet.until_connected()


@pytest.fixture
def without_polkit(bed: Bed) -> Iterator[None]:
    bed.run("systemctl", "mask", "--now", "--runtime", "polkit.service")
    yield
    bed.run("systemctl", "unmask", "--runtime", "polkit.service")


def test_f23_a_missing_polkit_is_said_in_plain_words(bed: Bed, fleet: Fleet, without_polkit: None):
    fleet.cli("restart", "s1")

    def said() -> bool:
        text = bed.journal("-u", AGENT, "-n", "50", "-o", "cat")
        return "is polkitd running" in text and "Traceback" not in text

    bed.until(said, within=30)
    findings = json.loads(bed.try_run("wa-agent", "doctor", "--json").stdout)["findings"]
    assert any(
        one["level"] == "wrong" and one["sentence"].startswith("polkit.service: masked")
        for one in findings
    )


def test_f40_a_power_cut_loses_no_instance_and_no_acknowledged_change(bed: Bed, fleet: Fleet):
    accounts = fleet.accounts()
    made: dict[str, tuple[str, ...]] = {"cut-0": (), "cut-1": ("enable", "disable")}
    for id, words in made.items():
        fleet.do("POST", "/api/instance", {"id": id, "engine": "sandbox", "enabled": False})
        for word in words:
            fleet.do("POST", f"/api/instance/{id}/{word}")
    bed.power_cut()
    bed.boot()
    fleet.until_connected()
    rows = fleet.list()
    assert [rows[id]["enabled"] for id in made] == [False, False]
    assert fleet.accounts() == accounts
    for id in made:
        fleet.forget(id)
