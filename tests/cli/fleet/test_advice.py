"""What an operator of a fleet sees at three in the morning: each state with its line and exit
status of `fleet status`, its alert, and advice of the runbook that names the cause and commands
that exist."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.metrics.runbook import paragraphs
from tests.cli.conftest import Cli
from tests.cli.fleet.conftest import FleetApi
from tests.metrics.stories import Story, always, in_fleet
from tests.metrics.test_rules import TABLE, firing
from tests.trial.hostile.operating.commands import commands


@dataclass(frozen=True)
class Row:
    """One of the rows N of the fleet's acceptance, and how its state shows."""

    name: str
    alert: str
    figures: dict[str, Any]
    advice: tuple[str, ...]
    """What the paragraph says of the cause, and what to do."""
    status: dict[str, Any] = field(default_factory=dict)
    """Of the answer that `fleet status` prints; {}: the state is of single sessions."""
    line: str = ""
    never: str = ""
    """A command that would do harm now."""


def database(error: str) -> dict[str, Any]:
    return {"database": {"reachable": False, "error": error, "since_seconds": 90.0}}


def waits(why: str) -> dict[str, Any]:
    return {"waiting": [{"id": "sales", "machine": "b", "why": why}]}


AWAY: dict[str, Any] = {"database_reachable": False}
TWICE = "another agent may run with the identity of this machine"
ROWS = [
    Row(
        *("N0", "WaFleetHalted", {"halted": True}, ("`wa-agent fleet accept`, once", "newer")),
        status={"halted": "a change of owners was lost"},
        line="halted",
    ),
    Row(
        *("N3", "WaFleetTwoDatabases", {"elsewhere": 1}, ("standby was promoted", "forget none")),
        status={"elsewhere": ["b"]},
        line="databases",
        never="wa-agent fleet forget",
    ),
    Row(
        *("N4", "WaFleetDiskRefuses", {"unwritable": True}, ("cannot write", "Make room")),
        status={"memory_error": "cannot write fleet.json: [Errno 28] No space left on device"},
        line="disk",
    ),
    Row(
        *("N5", "WaFleetSessionsWait", {"waiting": 1}, ("cannot place its files", "that disk")),
        status=waits("cannot import into /var/lib/wa-agent: the disk has 0 bytes"),
        line="sales",
    ),
    Row(
        *("N7", "WaFleetDatabaseUnreachable", AWAY, (TWICE, "a copy of another one")),
        status=database(TWICE),
        line="database",
    ),
    Row(
        *("N8", "WaFleetSessionsWait", {"waiting": 1}, ("`wa-agent fleet accept-copy ID`",)),
        status=waits("its stored copy lacks changes of 3 h"),
        line="sales",
    ),
    Row(
        *("N9", "WaFleetDatabaseUnreachable", AWAY, ("rights", "`wa-agent doctor`")),
        status=database("the fleet's database refused: permission denied"),
        line="database",
    ),
    Row(
        *("N12", "WaFleetMachinesApart", {"apart": 1}, ("firewall", "`wa-agent doctor`")),
        status={"apart": [{"machine": "b", "why": "it does not answer"}]},
        line="apart",
    ),
    Row(
        *("N13", "WaFleetDatabaseUnreachable", AWAY, ("max_connections", "lock")),
        status=database("cannot reach the fleet's database: too many clients already"),
        line="database",
    ),
    Row(
        *("N18", "WaFleetCopiesBehind", {"copy_age_max": 400.0}, ("`wa-agent fleet why ID`",)),
    ),
]
UNSEEN = {
    "N1": "a late copy is refused, nothing is wrong afterwards",
    "N2": "a late renewal is refused, nothing is wrong afterwards",
    "N6": "older files go to the trash by themselves, the log says so",
    "N10": "it was a failure of the program",
    "N11": "a deleted session stays deleted",
    "N14": "numbers decide, not clocks",
    "N15": "its copies are behind, as in N18",
    "N16": "a command whose taking was lost is taken again",
    "N17": "the agent that stops names what it could not store",
    "N19": "promises of many are one write",
    "N20": "of this table: old facts are shown with their age, see test_stale.py",
}
COMMAND = re.compile(r"`(?:sudo )?wa-agent ([^`]+)`")


def test_each_row_of_the_fleet_is_seen_by_an_operator_or_says_why_not() -> None:
    seen = {row.name for row in ROWS}
    assert not seen & UNSEEN.keys()
    assert seen | UNSEEN.keys() == {f"N{number}" for number in range(21)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_state_fires_its_alert_whose_advice_fits(row: Row) -> None:
    story = Story(row.alert, row.name, 6, always(in_fleet(**row.figures)), fires=True)
    always_fires = "WaDeadMansSwitch"
    assert {it.name for it in firing(story)[360.0]} == {row.alert, always_fires}
    said = paragraphs()[row.alert]
    assert [words for words in row.advice if words not in said] == []
    assert not row.never or row.never not in said


@pytest.mark.parametrize("row", [it for it in ROWS if it.status], ids=lambda row: row.name)
async def test_fleet_status_ends_with_1_and_names_it(row: Row, api: FleetApi, cli: Cli) -> None:
    assert (await cli("fleet", "status")).status == 0
    api.fleet.update(row.status)
    shown = await cli("fleet", "status")
    assert shown.status == 1
    assert re.search(rf"^{row.line} +\S", shown.out, re.M)


@pytest.mark.parametrize("alert", [it.name for it in TABLE if it.name.startswith("WaFleet")])
def test_the_advice_names_commands_and_alerts_that_exist(alert: str) -> None:
    said = paragraphs()[alert]
    known = [words.split() for words in commands()]
    for typed in map(str.split, COMMAND.findall(said)):
        words = [it for it in typed if it.islower() and not it.startswith("-")]
        assert any(it[: len(words)] == words for it in known), typed
    assert set(re.findall(r"\bWa[A-Z]\w+", said)) <= {it.name for it in TABLE}
