"""The commands of backends, and what they add to those of instances."""

import re

import pytest

from agent.config.load import load_config
from agent.core.words import InstanceId, RemoteSession


@pytest.fixture
def evo(house):
    found = house.supervisor.backends
    found.declare("evo")
    found.there["evo"] = [
        RemoteSession("Shop 1", "open", "491700000001", "Sales"),
        RemoteSession("b", ""),
    ]
    return found


async def test_backends_are_listed_and_one_is_shown_by_its_name(cli, evo):
    evo.declare("desk", "whaticket", up=False, reason="timeout", sentence="no answer in 10 s")
    listed = await cli("backends")
    assert listed.status == 0
    assert re.search(
        r"evo +evolution +http://evo.example:8080 +yes since [-:0-9 ]+ +2.3.7 +2", listed.out
    )
    assert re.search(r"desk +whaticket .* no .*no answer in 10 s", listed.out)
    assert [one["name"] for one in (await cli("backends", "--json")).json()] == ["desk", "evo"]
    shown = await cli("backends", "show", "desk")
    assert "no answer in 10 s" in shown.out and "evo" not in shown.out
    assert (await cli("backends", "show", "evo", "--json")).json()["name"] == "evo"
    missing = await cli("backends", "show", "other")
    assert (missing.status, missing.err) == (
        3,
        "wa-agent: cannot find the backend other: none of that name is declared\n",
    )


async def test_sessions_of_the_server_are_listed_and_adopted(cli, house, evo):
    adopted = await cli("backends", "adopt", "evo", "Shop 1", "--id", "shop")
    assert adopted.out == "shop is Shop 1 on evo\n"
    assert (await cli("backends", "adopt", "evo", "b", "--json")).json()["id"] == "b"
    await cli("create", "gone", "--engine", "evolution", "--backend", "evo", "--remote", "away")
    listed = await cli("backends", "sessions", "evo")
    assert re.search(r"Shop 1 +Sales +open +491700000001 +shop", listed.out)
    assert re.search(r"away +- +missing +- +gone", listed.out)
    assert len((await cli("backends", "sessions", "evo", "--json")).json()["sessions"]) == 2
    assert (await cli("backends", "adopt", "evo", "none")).status == 3
    assert (await cli("backends", "adopt", "evo", "b")).status == 4
    assert (await cli("backends", "adopt", "evo", "b", "--id", "B")).status == 2


async def test_a_check_says_with_its_status_how_it_is(cli, evo):
    assert (await cli("backends", "check", "evo")).status == 0
    evo.declare("evo", up=False)
    assert (await cli("backends", "check", "evo", "--json")).status == 1
    evo.away = True
    away = await cli("backends", "check", "evo")
    assert (away.status, away.err) == (75, "wa-agent: cannot ask backend evo: no connection\n")


async def test_an_instance_on_a_backend_is_created_listed_and_shown(cli, house, evo):
    made = await cli(
        "create", "shop", "--engine", "evolution", "--backend", "evo", "--remote", "Shop 1"
    )
    assert made.out == "shop created\n"
    settings = house.supervisor.known[InstanceId("shop")].instance.settings
    assert settings == {"backend": "evo", "remote": "Shop 1"}
    await cli("create", "here", "--engine", "sandbox")
    assert re.search(r"backend +evo\n +remote +Shop 1\n", (await cli("show", "shop")).out)
    assert "backend" not in (await cli("show", "here")).out
    assert (await cli("create", "x", "--engine", "whaticket", "--backend", "evo")).status == 2


async def test_deleting_leaves_the_session_on_the_server(cli, house, evo):
    await cli("create", "shop", "--engine", "evolution", "--backend", "evo")
    said = await cli("delete", "shop")
    assert said.out.splitlines()[:2] == ["shop deleted", "shop on evo is untouched"]
    assert house.supervisor.commands == []


async def test_deleting_there_too_takes_the_words(cli, house, evo):
    await cli("create", "shop", "--engine", "evolution", "--backend", "evo", "--remote", "Shop 1")
    refused = await cli("delete", "shop", "--remote")
    assert (refused.status, "--confirm 'delete Shop 1'" in refused.err) == (4, True)
    assert (await cli("delete", "shop", "--remote", "--confirm", "yes")).status == 4
    assert house.supervisor.commands == []
    done = await cli("delete", "shop", "--remote", "--confirm", "delete Shop 1")
    assert "Shop 1 on evo is deleted too" in done.out
    assert house.supervisor.commands == [("shop", "delete", {})]


async def test_a_backend_is_added_to_the_settings_of_a_person(cli, house, evo, tmp_path):
    config, key = tmp_path / "agent.toml", tmp_path / "desk.key"
    house.server._parts.places["config"] = str(config)
    config.write_text("[agent]\n# mine\n")
    key.touch(0o600)
    words = ("backends", "add", "desk", "evolution", "http://127.0.0.1:9", "--config", config)
    other = await cli(*words[:-1], tmp_path / "other.toml")
    assert (other.status, f"give --config {config}, which the agent" in other.err) == (2, True)
    refused = await cli(*words, "--key-file", key)
    assert (refused.status, "it is empty" in refused.err) == (78, True)
    key.write_text("a-key-of-mine\n")
    assert (await cli(*words, "--key-file", key, "--adopt", "*")).out.startswith("desk is added")
    (desk,) = load_config(config, {}).backend
    assert (desk.name, desk.key_file, desk.adopt) == ("desk", str(key), ("*",))
    assert "# mine" in config.read_text() and "a-key-of-mine" not in config.read_text()
    twice = await cli(*words, "--key-file", key)
    assert (twice.status, "declared twice" in twice.err) == (2, True)
