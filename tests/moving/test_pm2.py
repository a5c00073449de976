"""Rows of `pm2 save` become tables that agent.toml takes. The rows are as pm2 7 wrote them."""

import json
import os
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config.load import load_config
from agent.errors import InvalidRequest
from agent.moving.program_commands import read_list, read_pm2, render
from agent.moving.programs import programs_of
from tests.cli.conftest import Cli, House, Said

SHELL = {"PIP_CERT": "/etc/ssl/ca.crt", "HOME": "/root"}


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        **{"name": "Shop Bot", "args": ["--shop", "1 2"], "exec_mode": "fork_mode"},
        **{"exec_interpreter": "node", "node_args": ["--max-old-space-size=200"]},
        **{"pm_exec_path": "/srv/shop/bot.js", "pm_cwd": "/srv/shop"},
        "env": {**SHELL, "PATH": "/bin", "PM2_HOME": "/x", "TOKEN": 'a "b"', "Shop Bot": "{}"},
    }
    return {**plain, **changes}


def bots(*rows: dict[str, Any]) -> list[Any]:
    return read_list(json.dumps(rows).encode(), SHELL)


def test_a_bot_moves_with_command_folder_and_its_own_variables(tmp_path: Path) -> None:
    """Also with a Node that only a shell's PATH has, as nvm installs it."""
    (own := tmp_path / "node").write_text("#!/bin/sh\n")
    own.chmod(0o755)
    env = {**SHELL, "PATH": f"{tmp_path}:/bin", "TOKEN": 'a "b"', "WA_SESSION": "x"}
    (bot,) = bots(row(max_memory_restart=314572800, kill_timeout=30_000, env=env))
    file = tmp_path / "agent.toml"
    file.write_text(render(bot.programs))
    (program,) = programs_of(load_config(file, {}))
    assert (program.name, program.folder) == ("shop-bot", "/srv/shop")
    assert program.command == (
        *(str(own), "--max-old-space-size=200", "/srv/shop/bot.js", "--shop", "1 2"),
    )
    assert program.environment == ("HOME=/root", 'TOKEN=a "b"', f"PATH={tmp_path}:/bin")
    assert (program.stop, program.pm2, bot.memory_limit) == (30.0, "signal", 314572800)
    assert bot.notes == ["its variable WA_SESSION"]


def test_names_and_processes_of_all_kinds() -> None:
    found = bots(
        row(name="many", NODE_APP_INSTANCE=0),
        row(name="many", NODE_APP_INSTANCE=1),
        row(name="Many", exec_interpreter="none", args="a b", node_args=[], env="X=1"),
        row(name="ünï \ud800[[x]]", exec_interpreter="/opt/tsx", node_args=[], args=[]),
        row(name="pm2-logrotate", pmx_module=True),
    )
    names = [[program.name for program in bot.programs] for bot in found]
    assert names == [["many-1", "many-2"], ["many"], ["n-x"]]
    first, second = (program.environment for program in found[0].programs)
    assert ("NODE_APP_INSTANCE=0" in first, second[-1]) == (True, "NODE_APP_INSTANCE=1")
    assert found[1].programs[0].command == ("/srv/shop/bot.js", "a", "b")
    assert found[2].programs[0].command == ("/opt/tsx", "/srv/shop/bot.js")
    tables = tomllib.loads(render([program for bot in found for program in bot.programs]))
    assert [table["name"] for table in tables["program"]] == ["many-1", "many-2", "many", "n-x"]


_NAMES = ("all", "-x", "/x/", "7", "3d", "", " ", "a\nb")


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        *(("name", name, "give it another name") for name in _NAMES),
        ("pm_cwd", "srv", "its folder: it must be an absolute path without .., not 'srv'"),
        ("args", [""], "its command: it must be a list of texts"),
    ],
)
def test_a_bot_that_cannot_move_says_why(key: str, value: object, cause: str) -> None:
    """`pm2 stop` would not stop it alone, or the agent would not read its row."""
    (bot,) = bots(row(**{key: value}))
    assert (bot.programs, cause in bot.refused) == ([], True)


LEFT = {
    **{"cron_restart": "0 4 * * *", "watch": True, "autorestart": False, "uid": "deploy"},
    **{"pm_out_log_path": "/var/log/shop.log", "exec_mode": "cluster_mode"},
    **{"max_memory_restart": 1 << 20, "pm_exec_path": "/usr/bin/npm"},
}


@pytest.mark.parametrize("key", LEFT)
def test_what_has_no_counterpart_is_named(key: str) -> None:
    assert bots(row())[0].notes == []
    assert len(bots(row(**{key: LEFT[key]}))[0].notes) == 1


@pytest.mark.parametrize("raw", [b"", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_list_of_pm2_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"list of pm2 \(--dump\): it is none"):
        read_list(raw, SHELL)


def test_the_printed_command_is_the_owners(tmp_path: Path) -> None:
    (tmp_path / "dump.pm2").write_text("[]")
    _, source, pm2 = read_pm2("", {"PM2_HOME": str(tmp_path)})
    assert (pm2, "0 minutes ago" in source) == (f"PM2_HOME={tmp_path} pm2", True)
    if os.geteuid() == 0:
        os.chown(tmp_path, 1, -1)
        assert read_pm2("", {"PM2_HOME": str(tmp_path)})[2].startswith("sudo -u ")


MINE = "# Mine.\n[api]\nsocket = '{}'\n"
Import = Callable[..., Awaitable[Said]]


@pytest.fixture
def move(house: House, cli: Cli, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """`import pm2` of these rows, into an agent.toml that names its agent."""
    (elsewhere / "agent.toml").write_text(MINE.format(house.socket_path))
    house.server._parts.places["config"] = str(elsewhere / "agent.toml")
    monkeypatch.delenv("WA_AGENT_SOCKET")

    async def call(rows: list[dict[str, Any]], *words: str) -> Said:
        (elsewhere / "dump").write_text(json.dumps(rows))
        return await cli("import", "pm2", "--dump", "dump", "--config", "agent.toml", *words)

    return call


async def test_a_dry_run_changes_nothing_and_a_second_import_adds_nothing(
    house: House, move: Import, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = elsewhere / "agent.toml", [row(env={"TOKEN": "s3cret"})]
    shown = await move(rows, "--dry-run")
    assert (shown.status, "TOKEN=***" in shown.out, "s3cret" in shown.out) == (0, True, False)
    assert config.read_text() == (mine := MINE.format(house.socket_path))
    assert (await move(rows, "--enable")).status == 2
    assert (await move(rows, "--only", "else")).status == 2
    monkeypatch.setattr("agent.moving.program_commands._create", lambda *_: None)
    done = await move(rows)
    assert (done.status, f"enable --socket {house.socket_path} shop" in done.out) == (0, True)
    once = config.read_text()
    assert once.startswith(mine) and "TOKEN=s3cret" in once
    again = await move(rows)
    assert (again.status, config.read_text()) == (0, once), again.err
    other = await move([row(pm_cwd="/srv/other")], "--json")
    (bot,) = json.loads(other.out)["bots"]
    assert (other.status, bot["move"], "another [[program]]" in bot["refused"]) == (1, "", True)


async def test_no_row_is_written_that_the_agent_would_refuse(
    house: House, cli: Cli, move: Import, elsewhere: Path
) -> None:
    """Two bots have one session, and an instance of another engine has the name of a third."""
    made = await cli("create", "till", "--engine", "sandbox", "--socket", house.socket_path)
    assert made.status == 0, made.err
    rows = [row(name="a"), row(name="b"), row(name="till", pm_cwd="/srv/till")]
    for words in (["--dry-run"], []):
        told = (await move(rows, *words, "--json")).json()["bots"]
        assert [bot["instances"] for bot in told] == [["a"], [], []]
        for bot, cause in zip(told, ("", "b and a have", "another instance till"), strict=True):
            assert cause in bot["refused"]
    (table,) = tomllib.loads((elsewhere / "agent.toml").read_text())["program"]
    assert table["name"] == "a"
