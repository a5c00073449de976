"""Repairs, setups, incidents and reasons from the command line."""

import re
import time
from typing import Any
from unittest.mock import Mock

import pytest

from agent.cli import session, views
from agent.core.admission import Incident
from agent.core.model import ClaimFact, ConnectionStatus, Health, HealthVerdict, InstanceId
from agent.core.recovery.repair import Goal, RecoveryKind, Repair, Trouble
from agent.core.words import Claim
from agent.errors import WaError
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.fakes.supervisor import make_view, result

S = ConnectionStatus


def put(house: House, id: str = "sales", **more: Any) -> None:
    house.supervisor.known[InstanceId(id)] = make_view(id, **more)


def stuck(house: House, id: str, reason: str = "zombie") -> None:
    put(house, id, verdict=HealthVerdict(Health.STUCK, S.RECONNECTING, reason, "it is stuck"))


async def test_every_repair_is_listed_with_its_end(house: House, cli: Cli) -> None:
    put(house)
    assert (await cli("recover", "sales")).out == "sales was repaired\n"
    assert not session.shows_code(Mock(ask=Mock(side_effect=WaError("away"))))
    put(house, status=S.QR_REQUIRED)
    assert "sales shows a code to scan" in (await cli("ensure-healthy", "sales")).out
    house.supervisor.repairs.result = result(False, False, False, "gave_up", "no code.")
    failed = await cli("recover", "sales")
    line = "sales is not well: gave up: no code; more: wa-agent why sales\n"
    assert (failed.status, failed.out) == (1, line)


async def test_a_cleanup_of_a_paired_one_must_be_meant(house: House, cli: Cli) -> None:
    put(house)
    refused = await cli("cleanup", "sales")
    line = "wa-agent: cannot clean up sales: it would end a pairing\n"
    assert (refused.status, refused.err) == (4, line)
    done = (await cli("cleanup", "sales", "--yes")).out
    assert done.endswith("--watch; what this machine had of it: wa-agent trash list\n")


async def test_a_round_repairs_who_needs_it_and_a_dry_one_says_what_it_would(
    house: House, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.Timer", late := Mock())
    put(house, "well")
    stuck(house, "a")
    stuck(house, "b", "session_damaged")
    planned = await cli("repair", "all", "--dry-run")
    assert re.search(r"a +stuck +it is stuck +would try: reconnect, restart, restore", planned.out)
    assert "cleanup" not in planned.out, "both are paired"
    assert house.supervisor.repairs.asked == []
    done = await cli("repair", "all", "--debug")
    assert re.search(r"b +stuck +it is stuck +recovered", done.out)
    assert "[a] repair_over: recover: recovered" in done.err
    assert sorted(house.supervisor.repairs.asked) == [("recover", "a"), ("recover", "b")]
    assert (await cli("repair", "well")).out == "nothing needs a repair\n"
    told = "wa-agent: repairing, 5 min at most for each: a is CONNECTED, it is stuck; b is"
    assert late.call_args.args[2][0].startswith(told), "where that takes long"
    assert [one["id"] for one in (await cli("repair", "a", "--json")).json()] == ["a"]
    put(house, "a", status=S.DISCONNECTED, reason="unreachable", sentence="no way")
    assert (await cli("repair", "a")).out == "nothing needs a repair; a is DISCONNECTED, no way\n"
    for reason in ("disk_full", "banned"):
        put(house, "a", status=S.AUTH_FAILURE, reason=reason, sentence="it is over")
        banned = await cli("repair", "a")
        assert re.search("a .*it is over +no step helps: a person must act", banned.out)
    put(house, "a", status=S.DISCONNECTED, reason="temporary_ban", sentence="banned", **LATER)
    lifted = await cli("repair", "a")
    assert re.search(r"a .*banned +no step helps: it waits until \d{4}-", lifted.out)
    asked = house.supervisor.repairs.asked[3:]
    assert (banned.status, lifted.status, asked) == (1, 1, []), "no round is tried"


async def test_incidents_are_shown_and_released(house: House, cli: Cli) -> None:
    assert (await cli("incidents")).out == "no incidents\n"
    since = time.clock_gettime(time.CLOCK_BOOTTIME) - 5
    found = Incident("sandbox", "phase_sync", since, [InstanceId("a")])
    house.supervisor.incidents.active["sandbox"] = found
    assert "phase_sync on 1 instances of sandbox" in (await cli("incidents")).out
    assert (await cli("incidents", "release", "sandbox")).status == 0
    assert (await cli("incidents", "release", "sandbox")).status == 3


LATER = {"not_before_wall": time.time() + 70_000}
SYNCS = {"status": S.LOADING, "claim": ClaimFact(Claim(S.LOADING, phase="sync"), 99, 5, 20)}


def repair(**more: Any) -> Repair:
    return Repair(Trouble.CONNECTION, "zombie", Goal.HEAL, time.time() - 60, **more)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"repair": repair(step=RecoveryKind.RESTART, tries=2, round=2, **LATER)},
            r"a repair \(heal\) runs since .*, round 2, step restart: the next step in \d+ h",
        ),
        (
            {"circuit": "open", "circuit_opens_wall": LATER["not_before_wall"]},
            r"paused: one trial in \d+ h.*, or now: wa-agent recover sales",
        ),
        ({"wait_reason": "incident", "reason": "incident"}, "waits for others: many instances"),
        (
            {"status": S.AUTH_FAILURE, "reason": "banned"},
            "advice: Settle it with WhatsApp(.|\n)*the agent does nothing more: a person must act",
        ),
        (
            {"status": S.AUTH_FAILURE, "reason": "session_unreadable"},
            r"next\n  it starts within a second once its folder .*: wa-agent health sales\n$",
        ),
        ({"status": S.DISCONNECTED, "reason": "connection_lost"}, "must act; one more try: wa-"),
        ({"status": S.DISCONNECTED, "reason": "temporary_ban"}, r"next\n  .*it tries again now\n$"),
        (LATER, r"attempt 1 in \d+ h"),
        ({"status": S.RECONNECTING}, r"next\n  it is on its way; the agent acts once that .*\n$"),
        (SYNCS, r"next\n  the agent acts in 1 min \d+ s if it is no further by then\n$"),
        ({}, "proof before this one is 1 min 30 s old\n  a hung worker is seen after 20 s"),
    ],
)
async def test_why_says_what_comes_next_and_when(
    house: House, cli: Cli, more: dict[str, Any], words: str
) -> None:
    put(house, **more)
    house.supervisor.note(InstanceId("sales"), "status", "CONNECTED → RECONNECTING: it fell silent")
    told = await cli("why", "sales")
    assert told.status == 0
    assert "it fell silent" in told.out
    assert re.search(words, told.out), told.out
    assert set((await cli("why", "sales", "--json")).json()) == {"id", "lately", "now", "next"}
    details = (await cli("show", "sales", "--json")).json()
    assert " for 0 s; " in next(views.present_state(details | {"since": "2150-01-01T00:00:00Z"}))
    found = [*views.next_steps(details | {"outbox": {"until": "2150-01-01T00:00:00Z"}})]
    assert any(step.startswith("what waits to be sent is tried in ") for step in found)
