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


async def test_doctor_reads_the_state_folder_of_the_agent_that_answers(
    cli: Cli, house: House, state: Path, tmp_path: Path
) -> None:
    (config := tmp_path / "its.toml").write_text("[health]\ninterval = 17\n")
    places = {"state": state, "sessions": state / "sessions", "config": config}
    filled_in = cast(dict[str, str], house.server._parts.places)  # as the daemon does
    filled_in.update({name: str(path) for name, path in places.items()})
    (state / "sessions/sales").chmod(0o755)
    found = {one["check"]: one for one in (await cli("doctor", "--json")).json()["findings"]}
    assert found["database"]["sentence"] == "whole"
    assert str(config) in found["config"]["sentence"]
    assert "sales (0755)" in found["state"]["sentence"]


async def test_an_agent_that_is_asked_over_http_may_be_another_machines(
    cli: Cli, house: House, state: Path, tmp_path: Path
) -> None:
    cast(dict[str, str], house.server._parts.places)["state"] = str(state)  # as the daemon does
    key = (await house.key("admin"))["Authorization"].removeprefix("Bearer ")
    mine = tmp_path / "mine"
    where = ("--url", house.url, "--key", key, "--state", str(mine))
    found = (await cli("doctor", "--json", *where)).json()["findings"]
    told = [one for one in found if one["check"] == "agent"]
    assert [one["level"] for one in told] == ["ok", "note"]
    assert told[1]["sentence"] == (f"that agent runs on {state}; these findings are about {mine}")


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
    doctor: Doctor, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_NODE", "/nonexistent/node")
    _, found = await doctor()
    assert [one["level"] for one in found["baileys"]] == ["ok"]
    declared = tmp_path / "baileys.toml"
    declared.write_text('[[instance]]\nid = "shop"\nengine = "baileys"\n')
    status, found = await doctor("--config", str(declared))
    assert status == 1
    assert {one["level"] for one in found["baileys"]} == {"wrong"}
    cast(dict[str, str], house.server._parts.places)["state"] = str(doctor.state)
    said = await doctor._run("create", "shop", "--engine", "baileys")
    assert (said.status, "scripts/install --with baileys" in said.out) == (0, True)
