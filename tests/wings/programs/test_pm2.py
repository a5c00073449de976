"""What pm2 keeps becomes tables that agent.toml takes. The rows are as pm2 7 wrote them."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config
from agent.errors import InvalidRequest
from agent.wings.programs.pm2 import read_dump, render
from agent.wings.programs.settings import programs_of

SHELL = {"PIP_CERT": "/etc/ssl/ca.crt", "HOME": "/root"}


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "Shop Bot",
        "args": ["--shop", "1 2"],
        "node_args": ["--max-old-space-size=200"],
        "pm_exec_path": "/srv/shop/bot.js",
        "pm_cwd": "/srv/shop",
        "exec_interpreter": "node",
        "exec_mode": "fork_mode",
        "env": {**SHELL, "PATH": "/bin", "PM2_HOME": "/x", "TOKEN": 'a "b"', "Shop Bot": "{}"},
    }
    return {**plain, **changes}


def test_a_bot_moves_with_command_folder_and_its_own_variables(tmp_path: Path) -> None:
    raw = json.dumps([row(max_memory_restart=314572800, cron_restart="0 4 * * *")]).encode()
    found = read_dump(raw, SHELL)
    text = render(found)
    file = tmp_path / "agent.toml"
    file.write_text(text)
    (program,) = programs_of(load_config(file, {}))
    assert program.name == "shop-bot"
    assert program.command == (
        *("node", "--max-old-space-size=200", "/srv/shop/bot.js", "--shop", "1 2"),
    )
    assert (program.folder, program.environment) == ("/srv/shop", ('TOKEN=a "b"',))
    assert "--set memory_limit=314572800 --disabled" in text
    assert "pm2 stop 'Shop Bot' && wa-agent enable shop-bot" in text
    assert found[0].notes == ["restarts by the clock (0 4 * * *)"]


def test_names_processes_and_interpreters_of_all_kinds(tmp_path: Path) -> None:
    rows = [
        row(name="many", exec_mode="cluster_mode"),
        row(name="many", exec_mode="cluster_mode"),
        row(name="Many", exec_interpreter="none", args="a b", node_args=[]),
        row(name="ünï\n[[x]]", exec_interpreter="python3", node_args=[], args=[]),
    ]
    found = read_dump(json.dumps(rows).encode(), SHELL)
    assert [its.program.name for its in found] == ["many", "many-2", "n-x"]
    assert [its.instances for its in found] == [["many-1", "many-2"], ["many-2-2"], ["n-x"]]
    assert found[1].program.command == ("/srv/shop/bot.js", "a", "b")
    assert found[2].program.command == ("python3", "/srv/shop/bot.js")
    tables = tomllib.loads(render(found))
    assert [table["name"] for table in tables["program"]] == ["many", "many-2", "n-x"]
    assert list(tables) == ["program"]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_list_of_pm2_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no list of pm2's"):
        read_dump(raw, SHELL)
