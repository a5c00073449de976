"""The whole of it on a booted machine: what the agent promises about faults, kept."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet, traffic

IDS = ("s1", "s2", "s3", "s4", "s5")


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


def test_f55_at_power_off_all_workers_have_closed_before_the_agent_is_stopped(
    bed: Bed, fleet: Fleet
):
    bed.reboot()
    fleet.until_connected()
    told = bed.journal("-b", "-1", "-o", "json", "--output-fields=_SYSTEMD_UNIT,UNIT,MESSAGE")
    lines = [json.loads(line) for line in told.splitlines()]

    def when(unit: str, words: str) -> int:
        """Of the last line of or about the unit with these words, in microseconds of that boot."""
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


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_f01_an_agent_that_goes_and_comes_back_touches_no_session(bed: Bed, fleet: Fleet, how: str):
    runs, pid = fleet.runs(), bed.show(AGENT, "MainPID")
    with traffic(bed) as seen:
        bed.until(lambda: seen.answered > 20)
        begun = time.monotonic()
        if how == "killed":
            bed.run("kill", "-9", pid)
        else:
            bed.run("systemctl", "restart", AGENT)
        bed.until(lambda: bed.show(AGENT, "MainPID") not in ("0", pid))
        fleet.until_connected()
        took = time.monotonic() - begun
        before = seen.answered
        bed.until(lambda: seen.answered > before + 20)
    print(
        f"\n{how}: adopted in {took:.2f} s, {seen.answered} answers, slowest {seen.slowest:.2f} s"
    )
    assert seen.answered > 50
    assert fleet.runs() == runs
    if how == "restarted":
        assert seen.unanswered == []
    else:
        # What the killed process had accepted stays unanswered: the one request that a client
        # had under way. No client is refused, and a second request is answered.
        assert max(seen.losers.values(), default=0) <= 1, seen.losers
        broken_off = ("ConnectionResetError", "RemoteDisconnected", "BrokenPipeError")
        assert all(one.startswith(broken_off) for one in seen.unanswered), seen.unanswered
        assert seen.lost == []


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
    steps = ["schedules stopped", "to prepare", "save ", "closed 5 workers", "database closed"]
    places = [said.rfind(step) for step in steps]
    assert -1 not in places, said
    assert places == sorted(places), said
    bed.run("systemctl", "start", AGENT)
    fleet.until_connected()
    assert fleet.accounts() == accounts


def test_a_start_that_is_still_asked_for_when_the_agent_stops_begins_no_worker(
    bed: Bed, fleet: Fleet
):
    """It is ordered after the agent, so it would begin when no agent is there to look after it."""
    polkitd = ("systemctl", "kill", "--kill-whom=main", "polkit.service")
    bed.run("wa-agent", "stop", "s4")
    bed.until(lambda: bed.show(fleet.unit("s4"), "ActiveState") == "inactive")
    before = bed.journal("-u", AGENT, "-o", "cat")
    bed.run(*polkitd, "--signal=STOP")
    try:
        bed.run("wa-agent", "start", "s4")

        def said(words: str) -> bool:
            return words in bed.journal("-u", AGENT, "-o", "cat").removeprefix(before)

        bed.until(lambda: said("start: "))
        bed.run("systemctl", "stop", "--no-block", AGENT)
        bed.until(lambda: said("stopping in order"))
    finally:
        bed.run(*polkitd, "--signal=CONT")
    bed.until(lambda: bed.show(AGENT, "ActiveState") == "inactive")
    assert bed.run("systemctl", "list-jobs", "--no-legend", "wa-instance@*").strip() == ""
    assert {bed.show(fleet.unit(id), "ActiveState") for id in IDS} == {"inactive"}
    bed.run("systemctl", "start", AGENT)
    fleet.until_connected()


def test_a_session_that_an_operator_stops_stays_stopped_until_started(bed: Bed, fleet: Fleet):
    bed.run("systemctl", "stop", fleet.unit("s4"))
    bed.run("wa-agent", "--json", "list")
    bed.until(lambda: fleet.list()["s4"]["override"] == "stopped")
    bed.run("systemctl", "restart", AGENT)
    bed.until(lambda: fleet.statuses()["s1"] == "CONNECTED")
    bed.try_run("wa-agent", "health", "s4")  # a whole pass of its own
    assert bed.show(fleet.unit("s4"), "ActiveState") == "inactive"
    assert fleet.list()["s4"]["enabled"] is True
    bed.run("systemctl", "start", fleet.unit("s4"))
    fleet.until_connected()


def test_a_session_stopped_by_systemctl_runs_again_after_a_boot(bed: Bed, fleet: Fleet):
    bed.run("systemctl", "stop", fleet.unit("s4"))
    bed.until(lambda: fleet.list()["s4"]["override"] == "stopped")
    bed.reboot()
    fleet.until_connected()


def test_f29_a_masked_worker_is_left_alone(bed: Bed, fleet: Fleet):
    unit = fleet.unit("s5")
    bed.run("systemctl", "mask", "--now", "--runtime", unit)
    try:
        # Its stop may be taken for an operator's, which it is as well.
        bed.until(lambda: fleet.list().get("s5", {}).get("reason") in ("masked", "stopped"))
        for _ in range(3):
            bed.try_run("wa-agent", "health", "s5")  # a whole pass of its own
        tried = bed.journal("-u", AGENT, "-n", "100", "-o", "cat").count("an operator masked it")
        assert tried <= 2
    finally:
        bed.run("systemctl", "unmask", "--runtime", unit)
    bed.run("systemctl", "start", unit)
    fleet.until_connected()


def test_f21_the_agent_survives_the_bus(bed: Bed, fleet: Fleet):
    runs, agent = fleet.runs(), bed.show(AGENT, "MainPID")

    def times_back() -> int:
        return bed.journal("-u", AGENT, "-o", "cat").count("the system bus is back")

    before = times_back()
    bed.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "dbus.service")
    bed.until(lambda: times_back() > before)
    fleet.cli("restart", "s1")
    bed.until(lambda: fleet.runs()["s1"] not in ("", runs["s1"]))
    fleet.until_connected()
    assert bed.show(AGENT, "MainPID") == agent
    assert fleet.runs()["s2"] == runs["s2"]


def test_f22_a_killed_polkitd_costs_nothing(bed: Bed, fleet: Fleet):
    run = fleet.runs()["s1"]
    bed.try_run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "polkit.service")
    fleet.cli("restart", "s1")
    bed.until(lambda: fleet.runs()["s1"] not in ("", run), within=30)
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
    assert ("polkit", "wrong") in [(one["check"], one["level"]) for one in findings]


@pytest.mark.parametrize("moment", [0.0, 0.35, 0.8])
def test_f40_a_power_cut_loses_no_instance_and_no_acknowledged_change(
    bed: Bed, fleet: Fleet, moment: float
):
    accounts = fleet.accounts()
    acknowledged: dict[str, bool] = {}
    begun = time.monotonic()
    tag = re.sub(r"\W", "", str(moment))
    for number in range(40):
        id = f"cut{tag}-{number}"
        fleet.cli("create", id, "--engine", "sandbox", "--disabled")
        acknowledged[id] = False
        if number % 2:
            fleet.cli("enable", id)
            acknowledged[id] = True
            fleet.cli("disable", id)
            acknowledged[id] = False
        if time.monotonic() - begun > moment:
            break
    bed.power_cut()
    bed.boot()
    fleet.until_connected()
    rows = fleet.list()
    assert {id: rows[id]["enabled"] for id in acknowledged} == acknowledged
    assert fleet.accounts() == accounts
    for id in acknowledged:
        fleet.forget(id)


def test_s4_at_boot_an_empty_state_folder_is_a_mount_that_is_away(bed: Bed, fleet: Fleet):
    accounts, state = fleet.accounts(), "/var/lib/wa-agent"
    bed.power_off()
    moved = bed.chroot("mv", state, "/var/lib/away")
    assert moved.returncode == 0, moved.stderr
    bed.boot()
    try:
        words = f"cannot start on {state}: it is empty, but /etc/wa-agent/state-used says"
        bed.until(lambda: words in bed.journal("-b", "-u", AGENT, "-o", "cat"), within=60)
        made = bed.run("find", state, "-type", "f").split()
        assert set(made) <= {f"{state}/lock"}, "systemd makes the folders, the agent nothing"
        found = json.loads(bed.try_run("wa-agent", "doctor", "--json").stdout)["findings"]
        said = [one["sentence"] for one in found if one["check"] == "state"]
        assert "says that an agent used a state here before" in said[0]
    finally:
        # As a mount over it does; systemd keeps trying, so the next start finds it. It may make the
        # empty folder again between the two: then once more.
        back = f"rm -rf {state} && mv -T /var/lib/away {state}"
        bed.until(lambda: bed.try_run("sh", "-c", back).returncode == 0)
    fleet.until_connected()
    assert fleet.accounts() == accounts


# What an agent in a fleet does for the worker of s1, once: a lease of so many seconds.
GIVE = """\
import asyncio
import sys
from pathlib import Path
from agent.clock import boot_now
from agent.link.client import Link
async def main():
    path = Path("/run/wa-instance/s1/link.sock")
    link = await Link.open(path, "s1", lambda _: None, *[lambda *_: None] * 3)
    await link.call("lease", {"until": boot_now() + float(sys.argv[1])})
    await link.close()
asyncio.run(main())
"""


@contextmanager
def frozen_agent(bed: Bed) -> Iterator[None]:
    """The agent does nothing meanwhile, and s1 is a session of a fleet."""
    agent = bed.show(AGENT, "MainPID")
    path = "/var/lib/wa-agent/sessions/s1/instance.json"
    # Or systemd would end it after 30 s.
    bed.run("systemctl", "service-watchdogs", "no")
    bed.run("kill", "-STOP", agent)
    bed.run("sed", "-i", 's/"leased": false/"leased": true/', path)
    try:
        yield
    finally:
        bed.run("sed", "-i", 's/"leased": true/"leased": false/', path)
        bed.run("kill", "-CONT", agent)
        bed.run("systemctl", "service-watchdogs", "yes")
