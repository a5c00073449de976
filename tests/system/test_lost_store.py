"""A paired session whose store is lost, on a booted machine: no kind of start shows a code."""

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet

ID = "lost"
STORE = f"/var/lib/wa-agent/sessions/{ID}/session/sandbox.json"


@pytest.fixture
def fleet(bed: Bed) -> Iterator[Fleet]:
    fleet = Fleet(bed, (ID,))
    try:
        fleet.make()
        fleet.cli("snapshot", ID)
        yield fleet
    finally:
        with suppress(AssertionError):
            bed.run("systemctl", "start", "wa-agent.socket", AGENT)
            bed.run("wa-agent", "delete", ID)


def device(bed: Bed) -> str:
    return str(json.loads(bed.path(STORE).read_text())["device"])


def refuses(bed: Bed) -> bool:
    return "unpaired_suspect" in bed.show(Fleet.unit(ID), "StatusText")


def test_f42_neither_systemd_nor_an_operator_starts_a_session_on_a_lost_store(
    bed: Bed, fleet: Fleet
):
    unit, before, account = fleet.unit(ID), device(bed), fleet.accounts()[ID]

    # The agent is away; its worker was closed in order.
    bed.run("systemctl", "stop", "wa-agent.socket", AGENT)
    bed.until(lambda: bed.show(unit, "ActiveState") == "inactive")
    bed.path(STORE).unlink()
    bed.run("systemctl", "start", unit)
    bed.until(lambda: refuses(bed))
    assert not bed.path(STORE).exists()

    # It crashes, and systemd's Restart= begins it again.
    run = bed.show(unit, "InvocationID")
    bed.run("kill", "-9", str(fleet.pid(ID)))
    bed.until(lambda: bed.show(unit, "InvocationID") not in ("", run))
    bed.until(lambda: refuses(bed))
    bed.run("systemctl", "restart", unit)
    bed.until(lambda: refuses(bed))
    assert not bed.path(STORE).exists()
    assert "QR_REQUIRED" not in bed.journal("-u", unit, "_SYSTEMD_INVOCATION_ID=" + run)

    # The agent comes, and so does the snapshot.
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)
    fleet.until_connected()
    assert (device(bed), fleet.accounts()[ID]) == (before, account)

    # And the same with the agent there: killed, and its store gone by then.
    bed.run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", unit)
    bed.path(STORE).unlink()
    bed.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", unit)
    bed.until(lambda: "restored" in bed.run("wa-agent", "why", ID), within=60)
    bed.until(lambda: bed.path(STORE).exists() and device(bed) == before, within=60)
    fleet.until_connected()
    assert fleet.accounts()[ID] == account
    assert fleet.events(ID).count("paired") == 1
    story = bed.run("wa-agent", "events", ID, "-n", "200")
    assert story.count("→ QR_REQUIRED") <= 1, story
