"""The doctor looks at the agent that answers, and a browser that is needed soon."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from agent.engines.web import doctor as web
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.cli.doctor.test_doctor import Doctor, doctor, state

__all__ = ["doctor", "state"]

# --- which agent, which state -----------------------------------------------------------------


@pytest.fixture
async def other(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path
) -> House:
    """The agent that WA_AGENT_SOCKET names runs on `state`, whatever this shell's folder is."""
    config = tmp_path / "its.toml"
    config.write_text("[health]\ninterval = 17\n")
    places = {"state": state, "sessions": state / "sessions", "config": config}
    filled_in = cast(dict[str, str], house.server._parts.places)  # as the daemon does
    filled_in.update({name: str(path) for name, path in places.items()})
    monkeypatch.chdir(tmp_path)
    return house


async def test_doctor_reads_the_state_folder_of_the_agent_that_answers(
    cli: Cli, other: House, state: Path, tmp_path: Path
) -> None:
    said = await cli("doctor", "--json")
    found = {one["check"]: one for one in said.json()["findings"]}
    assert (said.status, found["database"]["sentence"]) == (0, "whole")
    assert str(tmp_path / "its.toml") in found["config"]["sentence"]
    (state / "sessions/sales").chmod(0o755)
    said = await cli("doctor", "--json")
    found = {one["check"]: one for one in said.json()["findings"]}
    assert "sales (0755)" in found["state"]["sentence"]


async def test_an_agent_that_is_asked_over_http_may_be_another_machines(
    cli: Cli, other: House, state: Path, tmp_path: Path
) -> None:
    key = (await other.key("admin"))["Authorization"].removeprefix("Bearer ")
    mine = tmp_path / "mine"
    where = ("--url", other.url, "--key", key, "--state", str(mine))
    found = (await cli("doctor", "--json", *where)).json()["findings"]
    told = [one for one in found if one["check"] == "agent"]
    assert [one["level"] for one in told] == ["ok", "note"]
    assert told[1]["sentence"] == (f"that agent runs on {state}; these findings are about {mine}")


async def test_the_settings_shown_are_those_of_the_agent_that_answers(
    cli: Cli, other: House, state: Path, tmp_path: Path
) -> None:
    shown = (await cli("config", "show", "--json")).json()
    assert (shown["agent"]["state_path"], shown["health"]["interval"]) == (str(state), 17)
    mine = tmp_path / "mine.toml"
    mine.write_text("[health]\ninterval = 18\n")
    shown = (await cli("config", "show", "--json", "--config", str(mine))).json()
    assert shown["health"]["interval"] == 18
    nobody = str(tmp_path / "nobody.sock")
    shown = (await cli("config", "show", "--json", "--socket", nobody)).json()
    assert shown["health"]["interval"] == 30


# --- the browser ------------------------------------------------------------------------------


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Names the parts that the web engine lacks here."""

    def lacks(*codes: str) -> None:
        found = [web.Finding(code, f"{code} here", "install it") for code in codes]
        monkeypatch.setattr(web, "examine", lambda *_: found)

    return lacks


async def test_a_browser_is_looked_at_before_the_first_web_instance(
    doctor: Doctor, browser: Callable[..., None], state: Path, tmp_path: Path
) -> None:
    browser("browser_missing", "bundle_missing", "setpriv_missing")
    _, found = await doctor()
    (only,) = found["browser"]
    assert (only["level"], only["sentence"].startswith("no web instance")) == ("ok", True)
    browser("bundle_missing")
    _, found = await doctor()
    assert [one["level"] for one in found["browser"]] == ["note"]
    browser("browser_missing", "bundle_missing")
    declared = tmp_path / "web.toml"
    declared.write_text('[[instance]]\nid = "shop"\nengine = "web"\n')
    _, found = await doctor("--config", str(declared))
    assert [one["level"] for one in found["browser"]] == ["wrong", "wrong"]


async def test_node_and_packages_are_looked_at_where_a_baileys_instance_needs_them(
    doctor: Doctor, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_NODE", "/nonexistent/node")
    _, found = await doctor()
    assert [one["level"] for one in found["baileys"]] == ["ok"]
    declared = tmp_path / "baileys.toml"
    declared.write_text('[[instance]]\nid = "shop"\nengine = "baileys"\n')
    status, found = await doctor("--config", str(declared))
    assert status == 1
    assert {one["level"] for one in found["baileys"]} == {"wrong"}
    assert any("scripts/install --with baileys" in one["advice"] for one in found["baileys"])
