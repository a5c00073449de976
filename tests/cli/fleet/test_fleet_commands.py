"""The fleet's commands: what they show, what they ask before, and how they end."""

import re
from typing import Any

import pytest

from agent.cli.fleet import machines, waiting
from agent.cli.fleet.status import machine_lines
from agent.cli.terminal.show import columns_of
from tests.cli.conftest import Cli
from tests.cli.fleet.conftest import FleetApi, machine

SESSION = {
    "id": "sales",
    "machine": "a",
    "epoch": 3,
    "why": "its machine was lost",
    "moved_at": "2026-01-15T10:30:45+00:00",
    "copy_age_seconds": 0.6,
    "copy_bytes": 4096,
    "copy_behind_seconds": 0.0,
    "copy_problem": "",
    "failover": "newest",
    "labels": {},
    "only_on": "",
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_EVERY", 0.01)
    monkeypatch.setattr(machines, "_STANDSTILL", 0.2)


async def test_status_shows_machines_and_what_waits_or_moves(api: FleetApi, cli: Cli) -> None:
    api.fleet["machines"].append(machine("c", alive=False, reachable=False, sessions=1))
    api.fleet["waiting"] = [{"id": "web1", "why": "its machine is lost", "machine": "c"}]
    api.fleet["moving"] = [{"id": "sales", "to": "b"}]
    shown = await cli("fleet", "status")
    assert re.search(r"^lease +holds for 14 s$", shown.out, re.M)
    assert re.search(
        r"^b \(zone=west\) +alive +3 of 100 +2 s ago +yes +1\.4\.0 +bai", shown.out, re.M
    )
    assert re.search(r"^c +lost +1 of 100 +2 s ago +no ", shown.out, re.M)
    assert re.search(r"^web1 +c +its machine is lost$", shown.out, re.M)
    assert re.search(r"^sales +b$", shown.out, re.M)
    assert shown.status == 1
    assert (await cli("fleet", "status", "--json")).json() == api.fleet


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"lease": {"holds": True, "seconds_left": 9.0, "by": "promises"}},
            "holds for 9 s, because every other machine promised to wait",
        ),
        ({"lease": {"holds": False, "seconds_left": 0.0, "by": ""}}, "has ended: its sessions"),
        (
            {"database": {"reachable": False, "error": "timeout", "since_seconds": 61.0}},
            "has not answered for 1 min 1 s: timeout",
        ),
        (
            {
                "database": {"reachable": False, "error": "timeout", "since_seconds": 61.0},
                "machines_as_of_seconds": 61.0,
            },
            "below as they were 1 min 1 s ago",
        ),
        ({"halted": "a change of owners was lost"}, "lost (wa-agent fleet accept)"),
        ({"memory_error": "cannot write fleet.json: No space"}, "No space: this machine renews no"),
        ({"elsewhere": ["b"]}, "b renew in another database than this machine"),
        (
            {"apart": [{"machine": "b", "why": "no route to it"}]},
            "without the database the sessions would stop, because of b: no route to it",
        ),
    ],
)
async def test_status_says_what_is_wrong(
    api: FleetApi, cli: Cli, changes: dict[str, Any], line: str
) -> None:
    api.fleet.update(changes)
    shown = await cli("fleet", "status")
    assert line in shown.out
    assert shown.status == (0 if "promises" in str(changes) else 1)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_narrow_terminal_gets_fewer_columns_and_no_broken_line(width: int) -> None:
    lines = machine_lines([machine("a"), machine("frankfurt-2", drained=True)], width)
    assert all(columns_of(line) <= width for line in lines)
    assert lines[0].startswith("MACHINE      STATE    SESSIONS")
    assert ("ADDRESS" in lines[0]) == (width == 200)


async def test_a_drain_waits_until_the_machine_is_empty(api: FleetApi, cli: Cli) -> None:
    said = await cli("fleet", "drain", "b")
    assert "wa-agent fleet undrain b" in said.out
    steps = [machine("b", sessions=left, drained=True) for left in (2, 1, 0)]
    api.answers["/api/fleet"] = [{**api.fleet, "machines": [step]} for step in steps]
    said = await cli("fleet", "drain", "b", "--wait")
    assert (said.status, said.out) == (
        0,
        "b is drained and runs no session; you may switch it off\n",
    )
    assert api.posted() == [("/api/fleet/machines/b/drain", None)] * 2
    assert (await cli("fleet", "undrain", "b")).out == "b takes sessions again\n"


async def test_a_drain_says_when_sessions_stay(api: FleetApi, cli: Cli) -> None:
    said = await cli("fleet", "drain", "b", "--wait", "30")
    assert said.status == 4
    assert "3 sessions stay there" in said.err
    assert "wa-agent list --machine b" in said.err
    api.fleet["moving"] = [{"id": "sales", "to": "a"}]
    late = await cli("fleet", "drain", "b", "--wait", "0.3")
    assert (late.status, "cannot wait longer for b to be empty" in late.err) == (75, True)


async def test_only_a_dead_machine_is_forgotten_and_only_by_its_name(
    api: FleetApi, cli: Cli
) -> None:
    said = await cli("fleet", "forget", "b")
    assert (said.status, "wa-agent fleet drain b" in said.err) == (4, True)
    api.fleet["machines"][1]["alive"] = False
    said = await cli("fleet", "forget", "b")
    assert (said.status, "would then run its sessions twice" in said.err) == (4, True)
    assert (await cli("fleet", "forget", "b", "--confirm", "a")).status == 4
    assert api.posted() == []
    assert (await cli("fleet", "forget", "b", "--confirm", "b")).status == 0
    assert api.posted() == [("/api/fleet/machines/b/forget", {"confirm": "b"})]
    said = await cli("fleet", "forget", "nobody", "--confirm", "nobody")
    assert (said.status, "the fleet has: a, b" in said.err) == (3, True)


async def test_a_loss_is_accepted_only_where_one_is_and_with_a_yes(api: FleetApi, cli: Cli) -> None:
    assert (await cli("fleet", "accept", "--yes")).status == 4
    api.fleet["halted"] = "a change of owners was lost"
    next(it for it in api.fleet["machines"] if it["name"] == "b")["alive"] = False
    said = await cli("fleet", "accept")
    assert (said.status, "confirm with: --yes" in said.err) == (4, True)
    assert "b did not tell what runs there" in said.err
    assert api.posted() == []
    assert (await cli("fleet", "accept", "--yes")).status == 0
    assert api.posted() == [("/api/fleet/accept", {"confirm": True})]


async def test_a_move_is_followed_to_its_end(api: FleetApi, cli: Cli) -> None:
    path = "/api/instance/sales/fleet"
    api.answers[path] = [SESSION]
    said = await cli("fleet", "move", "sales", "--to", "b")
    assert said.out.startswith("sales moves away from a\n")
    assert api.posted() == [("/api/instance/sales/move", {"to": "b"})]
    api.fleet["moving"] = [{"id": "sales", "to": "b"}]
    api.answers[path] = [SESSION, SESSION, {**SESSION, "machine": "b"}]
    assert (await cli("fleet", "move", "sales", "--wait")).out == "sales is on b now\n"
    api.fleet["moving"], api.answers[path] = [], [SESSION]
    said = await cli("fleet", "move", "sales", "--wait")
    assert (said.status, "it runs on a as before" in said.err) == (4, True)


async def test_why_names_the_owner_and_the_copy(api: FleetApi, cli: Cli) -> None:
    api.answers["/api/instance/sales/fleet"] = [SESSION]
    shown = (await cli("fleet", "why", "sales")).out
    assert re.search(r"^since +\d{4}-.*: its machine was lost$", shown, re.M)
    assert re.search(r"^copy +0 s old, 4096 bytes$", shown, re.M)
    late = SESSION | {"copy_behind_seconds": 90.0, "copy_problem": "its files are damaged"}
    api.answers["/api/instance/sales/fleet"] = [late]
    shown = (await cli("fleet", "why", "sales")).out
    assert "4096 bytes; it lacks changes of 1 min 30 s: its files are damaged\n" in shown
    assert re.search(r"^failover +newest: starts elsewhere", shown, re.M)


@pytest.mark.parametrize(
    ("outcome", "status"), [("done", 0), ("refused", 4), ("expired", 1), ("unknown", 1)]
)
async def test_a_stored_command_ends_with_the_status_of_its_outcome(
    api: FleetApi, cli: Cli, outcome: str, status: int
) -> None:
    stored = {
        "id": "5f1c", "instance": "sales", "verb": "restart", "state": "waiting", "outcome": "",
        "sentence": "", "asked_by": "local", "age_seconds": 12.0, "machine": "b",
    }  # fmt: skip
    ended = {**stored, "state": "ended", "outcome": outcome, "sentence": "It was so."}
    path = "/api/fleet/commands/5f1c"
    api.answers[path] = [stored]
    said = await cli("fleet", "command", "5f1c")
    assert (said.status, said.out) == (0, "restart sales: waits for b, asked 12 s ago\n")
    api.answers[path] = [stored, {**stored, "state": "begun"}, ended]
    said = await cli("fleet", "command", "5f1c", "--wait")
    assert (said.status, said.out) == (status, f"restart sales: {outcome}. It was so.\n")


async def test_without_a_fleet_the_agents_sentence_is_printed(api: FleetApi, cli: Cli) -> None:
    refusal = {"status": 404, "error": "no_fleet", "message": "set [fleet] database", "field": None}
    api.answers["/api/fleet"] = [refusal]
    said = await cli("fleet", "status")
    assert (said.status, said.err) == (3, "wa-agent: set [fleet] database\n")
