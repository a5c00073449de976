"""What pm2 keeps becomes tables that agent.toml takes. The rows are as pm2 7 wrote them."""

import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import run
from agent.config import load_config
from agent.errors import InvalidRequest
from agent.wings.programs.moved import render
from agent.wings.programs.pm2 import read_list
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
    raw = json.dumps([row(max_memory_restart=314572800, kill_timeout=30_000)]).encode()
    (bot,) = read_list(raw, SHELL)
    file = tmp_path / "agent.toml"
    file.write_text(render([bot]))
    (program,) = programs_of(load_config(file, {}))
    assert program.name == "shop-bot"
    node = shutil.which("node", path="/bin") or "node"
    assert program.command == (
        *(node, "--max-old-space-size=200", "/srv/shop/bot.js", "--shop", "1 2"),
    )
    assert (program.folder, program.environment) == ("/srv/shop", ("HOME=/root", 'TOKEN=a "b"'))
    assert (program.stop, program.pm2, bot.memory_limit) == (30.0, "signal", 314572800)


def test_names_processes_and_interpreters_of_all_kinds() -> None:
    rows = [
        row(name="many", exec_mode="cluster_mode", NODE_APP_INSTANCE=0),
        row(name="many", exec_mode="cluster_mode", NODE_APP_INSTANCE=1),
        row(name="Many", exec_interpreter="none", args="a b", node_args=[]),
        row(name="ünï\n[[x]]", exec_interpreter="/opt/tsx", node_args=[], args=[]),
        row(name="pm2-logrotate", pmx_module=True),
    ]
    bots = read_list(
        json.dumps([{"name": its["name"], "pm2_env": its} for its in rows]).encode(), SHELL
    )
    assert [[its.name for its in bot.programs] for bot in bots] == [
        ["many-1", "many-2"],
        ["many"],
        ["n-x"],
    ]
    first, second = bots[0].programs
    assert ("NODE_APP_INSTANCE=0" in first.environment, second.environment[-1]) == (
        True,
        "NODE_APP_INSTANCE=1",
    )
    assert bots[1].programs[0].command == ("/srv/shop/bot.js", "a", "b")
    assert bots[2].programs[0].command == ("/opt/tsx", "/srv/shop/bot.js")
    tables = tomllib.loads(render(bots))
    assert [table["name"] for table in tables["program"]] == ["many-1", "many-2", "many", "n-x"]
    assert list(tables) == ["program"]


def test_a_node_that_a_shell_found_is_found_here_too(tmp_path: Path) -> None:
    """As nvm installs it, which no service has in its PATH."""
    (own := tmp_path / "bin").mkdir()
    (own / "node").write_text("#!/bin/sh\n")
    (own / "node").chmod(0o755)
    path = f"{own}:/bin"
    (bot,) = read_list(json.dumps([row(env={"PATH": path})]).encode(), SHELL)
    assert bot.programs[0].command[0] == str(own / "node")
    assert bot.programs[0].environment == (f"PATH={path}",)


@pytest.mark.parametrize(
    ("script", "arguments", "wanted"),
    [
        ("node src/bot.js --shop", ["start"], ("node", "src/bot.js", "--shop")),
        ("tsx bot.ts", ["run", "start"], ("tsx", "bot.ts")),
        ("NODE_ENV=x node bot.js", ["start"], None),
        ("node bot.js", ["test"], None),
    ],
)
def test_what_npm_would_start_is_started_itself(
    tmp_path: Path, script: str, arguments: list[str], wanted: tuple[str, ...] | None
) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"scripts": {"start": script}}))
    changes = {"pm_exec_path": "/usr/bin/npm", "args": arguments, "pm_cwd": str(tmp_path)}
    (bot,) = read_list(json.dumps([row(**changes)]).encode(), SHELL)
    if wanted is None:
        assert bot.programs[0].command[-len(arguments) - 1 :] == ("/usr/bin/npm", *arguments)
        assert any("npm starts it" in note for note in bot.notes)
    else:
        found = bot.programs[0].command
        assert (Path(found[0]).name, *found[1:]) == wanted
        assert not any("npm starts it" in note for note in bot.notes)


def test_what_has_no_counterpart_is_named() -> None:
    changes = {
        "cron_restart": "0 4 * * *",
        "watch": True,
        "autorestart": False,
        "pm_out_log_path": "/var/log/shop.log",
        "uid": "deploy",
        "exec_mode": "cluster_mode",
    }
    assert read_list(json.dumps([row()]).encode(), SHELL)[0].notes == []
    for name, value in changes.items():
        (bot,) = read_list(json.dumps([row(**{name: value})]).encode(), SHELL)
        assert len(bot.notes) == 1, name
    (bot,) = read_list(json.dumps([row(kill_timeout=6_000_000)]).encode(), SHELL)
    assert (bot.programs[0].stop, len(bot.notes)) == (10.0, 1)
    (bot,) = read_list(json.dumps([row(max_memory_restart="300M")]).encode(), SHELL)
    assert (bot.memory_limit, bot.notes) == (300 << 20, [])
    (bot,) = read_list(json.dumps([row(wait_ready=True)]).encode(), SHELL)
    assert (len(bot.taken), bot.notes) == (1, [])


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_list_of_pm2_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no list of pm2's"):
        read_list(raw, SHELL)


def test_a_bot_that_may_use_more_than_its_unit_grants_comes_with_a_drop_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"large": "3G", "small": "2G"}
    rows = [
        row(name=name, pm_cwd=str(tmp_path), max_memory_restart=most)
        for name, most in limits.items()
    ]
    (tmp_path / "dump").write_text(json.dumps(rows))
    (tmp_path / "agent.toml").touch()
    units = (f"Id=wa-instance@{id}.service\nMemoryMax={2 << 30}\n" for id in limits)
    (tmp_path / "systemctl").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(units) + "END\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    files = ("--dump", str(tmp_path / "dump"), "--config", str(tmp_path / "agent.toml"))
    assert run(["import", "pm2", "--dry-run", *files]) == 0
    said = capsys.readouterr().out
    path = "/etc/systemd/system/wa-instance@large.service.d/memory.conf"
    drop_in = (
        f"{path}\n    [Service]\n    MemoryMax={15 << 28}\n  and then: systemctl daemon-reload\n"
    )
    assert (drop_in in said, said.count("MemoryMax=")) == (True, 1), said
