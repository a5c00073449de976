"""Instances of a fleet on the command line: machine, old states, stored commands, placement."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent.cli.watch.top_frame import Sight, draw
from tests.api.conftest import House, house, open_house
from tests.cli.conftest import Cli
from tests.cli.fleet.conftest import FleetApi
from tests.wings.moving.conftest import keys_of, write_folder

__all__ = ["house", "open_house"]


@pytest.fixture
def entries(house: House, api: FleetApi) -> list[dict[str, Any]]:
    """As an agent of a fleet lists them: its own, and one of a machine that is away."""
    from agent.api.present import show_instance
    from tests.fakes.supervisor import make_view

    owners = {"sales": ("a", 0.0), "web-1": ("c", 94.0)}
    found = [
        {**show_instance(make_view(id)), "machine": name, "as_of_seconds": age}
        for id, (name, age) in owners.items()
    ]
    api.answers["/api/instances"] = [{"instances": found, "next": None}]
    return found


async def test_the_list_has_a_column_for_the_machine(
    entries: list[dict[str, Any]], cli: Cli, api: FleetApi
) -> None:
    listed = (await cli("list", "--machine", "c")).out
    assert re.search(r"^ID +MACHINE +ENGINE ", listed)
    assert re.search(r"^web-1 +c +sandbox .*as of 1 min 34 s ago; ", listed, re.M)
    assert re.search(r"^sales +a +sandbox .* connected and answering$", listed, re.M)
    assert any("machine=c" in path for _, path, _ in api.asked)
    for entry in entries:
        del entry["machine"], entry["as_of_seconds"]
    assert "MACHINE" not in (await cli("list")).out


def test_top_has_the_column_where_there_is_room_and_only_in_a_fleet(
    entries: list[dict[str, Any]],
) -> None:
    wide = draw(Sight(entries), 160, 0, colours=False)
    assert any(re.match(r"INSTANCE +MACHINE +STATUS", line) for line in wide)
    assert any("as of 1 min 34 s ago. " in line for line in wide)
    assert not any("MACHINE" in line for line in draw(Sight(entries), 60, 0, colours=False))
    alone = [
        {k: v for k, v in entry.items() if k not in ("machine", "as_of_seconds")}
        for entry in entries
    ]
    assert not any("MACHINE" in line for line in draw(Sight(alone), 160, 0, colours=False))


async def test_a_dry_run_of_an_import_says_which_machine_has_the_id(
    cli: Cli, api: FleetApi, tmp_path: Path
) -> None:
    write_folder(tmp_path / "sales", keys_of())
    api.answers["/api/instance/sales"] = [{"id": "sales", "machine": "b"}]
    api.answers["/api/instance/new"] = [{"error": "not_found", "message": "", "status": 404}]
    taken = await cli("import", str(tmp_path / "sales"), "--dry-run")
    assert (taken.status, "refused: sales exists on machine b" in taken.out) == (4, True)
    assert (await cli("import", str(tmp_path / "sales"), "new", "--dry-run")).status == 0
    assert api.posted() == []


async def test_a_command_that_waits_for_its_machine_says_how_to_see_its_end(
    cli: Cli, api: FleetApi
) -> None:
    stored = {"command": "5f1c", "state": "waiting", "sentence": "c is away; it runs there later"}
    api.answers["/api/instance/web-1/restart"] = [stored]
    said = await cli("restart", "web-1")
    assert said.status == 0
    assert said.out == (
        "c is away; it runs there later\nlook at its end: wa-agent fleet command 5f1c --wait\n"
    )


async def test_placement_is_sent_only_where_it_was_given(
    entries: list[dict[str, Any]], cli: Cli, api: FleetApi
) -> None:
    api.answers["/api/instance"] = [entries[0]]
    words = ("create", "sales", "--engine", "sandbox")
    await cli(*words)
    await cli(*words, "--on", "b", "--label", "zone=west", "--failover", "wait")
    first, second = (body for path, body in api.posted() if path == "/api/instance")
    assert not {"on", "labels", "failover"} & first.keys()
    assert {k: second[k] for k in ("on", "labels", "failover")} == {
        "on": "b",
        "labels": {"zone": "west"},
        "failover": "wait",
    }
    wrong = await cli(*words, "--label", "west")
    assert (wrong.status, "must be NAME=VALUE" in wrong.err) == (2, True)
