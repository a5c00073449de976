"""Each wing taken away: the base runs, heals and answers, and does not name what is gone."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.api.http.call import plain_path
from agent.cli.groups import SECTIONS
from agent.config.wing_tables import wing_tables
from agent.wing import Wing, wings
from tests.daemon.conftest import RunningAgent, make_agent
from tests.wings.taken_away import PROGRAM, program_without

__all__ = ["make_agent"]

EACH = {wing.name: (wing,) for wing in wings()} | {"all": wings()}


@pytest.fixture(scope="module", params=EACH.values(), ids=EACH)
def taken(request: pytest.FixtureRequest) -> tuple[Wing, ...]:
    """The wings that are taken away: one, or all."""
    found: tuple[Wing, ...] = request.param
    return found


@pytest.fixture(scope="module")
def without(taken: tuple[Wing, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program whose folders of those wings are gone."""
    return program_without(taken, tmp_path_factory.mktemp("program"))


async def said_by(without: dict[str, str], *argv: str) -> str:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *argv),
        env={**os.environ, **without},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    assert b"Traceback" not in said, said.decode()
    return f"{program.returncode}\n{said.decode()}"


async def test_without_a_wing_the_agent_starts_heals_a_session_and_answers(
    taken: tuple[Wing, ...],
    without: dict[str, str],
    make_agent: Callable[..., RunningAgent],
    eventually: Callable[..., object],
) -> None:
    agent = make_agent()
    await agent.start(without)
    await agent.create("shop")
    await eventually(lambda: is_connected(agent))
    before = await agent.pid("shop")
    os.kill(before, 9)
    await eventually(lambda: agent.is_back("shop", before))
    gone = {plain_path(route.path) for wing in taken for route in routes_of(wing)}
    panels = [panel for wing in taken for panel in wing.panels]
    verbs = {
        (route.method.lower(), plain_path(route.path))
        for wing in taken
        for route in routes_of(wing)
    }
    if "/openapi.json" not in gone:
        described = await agent.do("GET", "/openapi.json")
        assert not [path for verb, path in verbs if verb in described["paths"].get(path, {})]
    else:
        for verb, path in verbs:
            if verb == "get" and "{" not in path:
                status, answer = await agent.ask("GET", path)
                assert (status, "openapi" in str(answer)) == (404, False), path
    if "/" not in gone:
        page = await agent.do("GET", "/")
        assert not [panel for panel in panels if panel in page]
    for panel in panels:
        assert (await agent.ask("GET", f"/page/{panel}"))[0] == 404
    for path in ("/", "/docs", "/openapi.json", "/runbook", "/metrics", "/api/alerts"):
        assert (await agent.ask("GET", path))[0] == (404 if path in gone else 200), path
    others = any(wing.imports or wing.exports for wing in taken)
    if others and not any(wing.archives for wing in taken):
        archive = str(agent.state.parent / "shop.tar.gz")
        for words in (("export", "shop", archive), ("import", archive, "--replace")):
            said = await said_by(without, *words, "--socket", str(agent.state / "api.sock"))
            assert said.startswith("0\n"), said
    log = agent.log.read_text()
    assert "Traceback" not in log
    assert ("started the warm process" in log) is not any(wing.forks for wing in taken)


async def test_without_a_wing_the_commands_work_and_do_not_name_it(
    taken: tuple[Wing, ...], without: dict[str, str], tmp_path: Path
) -> None:
    words = [word for wing in taken for words in wing.commands.values() for word in words.split()]
    shown = await said_by(without, "--help")
    assert shown.startswith("0\n")
    assert not [word for word in words if f"\n    {word} " in shown]
    titles = {wing.title for wing in taken if wing.title} - {*SECTIONS}
    assert not [title for title in titles if f"\n{title}:\n" in shown]
    for word in words:
        assert (await said_by(without, word)).startswith("2\n"), word
    for wing in taken:
        for command, module in (("import", wing.imports), ("create", wing.creates)):
            if module and command not in words:
                shown = await said_by(without, command, "--help")
                assert "--enable" in shown or "--disabled" in shown
                assert not [option for option in options_of(wing, module) if f" {option} " in shown]
        if wing.exports and "export" not in words:
            shown = await said_by(without, "export", "--help")
            assert not [name for name in wing.take(wing.exports).TARGETS if name in shown]
    file = tmp_path / "agent.toml"
    assert (await said_by(without, "config", "init", "--config", str(file))).startswith("0\n")
    written = file.read_text()
    assert not [name for wing in taken for name in tables_of(wing) if f"[{name}]" in written]
    assert (await said_by(without, "config", "check", "--config", str(file))).startswith("0\n")
    state = ("--state", str(tmp_path / "state"), "--config", str(file))
    found = await said_by(without, "doctor", "--socket", str(tmp_path / "none.sock"), *state)
    assert "config" in found
    folder = tmp_path / "prometheus"
    folder.mkdir()
    if "alerts" in words:
        return
    export = ("alerts", "export", str(folder), "--config", str(file))
    assert (await said_by(without, *export)).startswith("0\n")
    written = "".join(file.read_text() for file in folder.iterdir())
    assert "WaSessionDown" in written
    assert not [alert for wing in taken for alert in alerts_of(wing) if alert.name in written]


def test_the_base_names_no_wing() -> None:
    """Import contracts see imports only; a name in a text would be one as well."""
    folders = {f"wings.{wing.name}" for wing in wings()} | {
        f"wings/{wing.name}" for wing in wings()
    }
    for file in PROGRAM.rglob("*.py"):
        if PROGRAM / "wings" not in file.parents:
            text = file.read_text(encoding="utf-8")
            assert not [folder for folder in folders if folder in text], file


async def is_connected(agent: RunningAgent) -> bool:
    return await agent.status("shop") == "CONNECTED"


def routes_of(wing: Wing) -> tuple:
    return wing.take(wing.routes).ROUTES if wing.routes else ()


def tables_of(wing: Wing) -> list[str]:
    return [table.name for table in wing.take(wing.settings).TABLES] if wing.settings else []


def alerts_of(wing: Wing) -> tuple:
    return wing.take(wing.alerts).ALERTS if wing.alerts else ()


def options_of(wing: Wing, module: str) -> list[str]:
    parser = argparse.ArgumentParser(epilog="")
    wing.take(module).add_options(parser)
    return [name for name in parser._option_string_actions if name not in ("-h", "--help")]


def test_each_table_of_a_wing_is_read() -> None:
    assert {name for wing in wings() for name in tables_of(wing)} == set(wing_tables())
