"""A unit of systemd becomes a table that agent.toml takes, and an instance, disabled."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config
from agent.wings.programs.moved import Bot, render
from agent.wings.programs.settings import programs_of
from agent.wings.programs.unit import read_unit
from tests.daemon.conftest import PATIENT, RunningAgent
from tests.daemon.test_programs import BOT
from tests.daemon.test_vault import cli

UNIT = r"""
# A bot of mine.
[Unit]
Description=not the service's: ExecStart=/bin/false
[Service]
Type=notify
User=deploy
WorkingDirectory=/srv/shop bot
Environment="GREETING=hello \"you\"" RATE=100%%
Environment=LEFT=out
Environment=
Environment=RATE=100%% "GREETING=good day"
EnvironmentFile=-/nowhere/.env
EnvironmentFile=/srv/shop/.env
ExecStart=/usr/bin/node --max-old-space-size=200 \
    /srv/shop/bot.js --shop "1 2" $$5
Restart=always
RestartSec=3
MemoryMax=300M
TimeoutStopSec=1min
WatchdogSec=30
LimitNOFILE=4096
ExecStartPre=/bin/true
[Install]
WantedBy=multi-user.target
"""


def bot_in(folder: Path, text: str, name: str = "Shop.service") -> Bot:
    (folder / name).write_text(text)
    return read_unit(folder / name)


def test_a_unit_moves_with_what_it_says(tmp_path: Path) -> None:
    bot = bot_in(tmp_path, UNIT)
    (file := tmp_path / "agent.toml").write_text(render([bot], "unit"))
    (program,) = programs_of(load_config(file, {}))
    node = ("/usr/bin/node", "--max-old-space-size=200", "/srv/shop/bot.js", "--shop", "1 2", "$5")
    assert (program.name, program.command) == ("shop", node)
    assert (program.folder, program.environment_file) == ("/srv/shop bot", "/srv/shop/.env")
    assert program.environment == ("RATE=100%", "GREETING=good day")
    assert (program.stop, program.watchdog, bot.memory_limit) == (60.0, 30.0, 300 << 20)
    assert bot.notes == [
        "its user (deploy): `User=` in a drop-in of its unit sets one",
        "ExecStartPre, LimitNOFILE: write them into a drop-in of its unit",
    ]


def test_drop_ins_stand_above_the_unit(tmp_path: Path) -> None:
    (folder := tmp_path / "Shop.service.d").mkdir()
    (folder / "20-b.conf").write_text("[Service]\nExecStart=\nExecStart=/opt/b\n")
    (folder / "10-a.conf").write_text("[Service]\nExecStart=\nExecStart=/opt/a\nUser=root\n")
    bot = bot_in(tmp_path, UNIT)
    assert bot.programs[0].command == ("/opt/b",)
    assert any("(root)" in note for note in bot.notes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Restart=on-failure", "Restart=on-failure: here it is started again"),
        ("EnvironmentFile=/srv/second", "a second EnvironmentFile (/srv/second)"),
        ("ExecStart=\nExecStart=/bin/sh -c 'node bot.js'", "sh starts it: its library"),
        ("StandardOutput=append:/x", "ExecStartPre, LimitNOFILE, StandardOutput: write them"),
    ],
)
def test_what_has_no_counterpart_is_named(tmp_path: Path, line: str, words: str) -> None:
    bot = bot_in(tmp_path, UNIT.replace("[Install]", f"{line}\n[Install]"))
    assert bot.programs and any(note.startswith(words) for note in bot.notes), bot.notes


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("shop@1", "", "it is a template"),
        ("shop", "Type=forking", "Type=forking: a bot runs as long"),
        ("shop", "ExecStart=/bin/second", "it has 2 lines ExecStart"),
        ("shop", "ExecStart=\nExecStart=/opt/bot $SHOP", "its ExecStart has a specifier"),
        ("shop", "ExecStart=\nExecStart=/opt/bot 'half", "its quotes do not end"),
        ("shop", "WorkingDirectory=~", "its folder: it must be an absolute path"),
        ("shop", "Environment=WA_INSTANCE=x", "its Environment: WA_INSTANCE is the worker's"),
    ],
)
def test_what_cannot_move_says_why(tmp_path: Path, name: str, change: str, words: str) -> None:
    bot = bot_in(tmp_path, UNIT.replace("[Install]", f"{change}\n[Install]"), f"{name}.service")
    assert bot.programs == [] and bot.refused.startswith(words), bot.refused


async def test_a_unit_becomes_a_disabled_instance_and_stays_as_it_is(
    make_agent: Callable[..., RunningAgent],
    eventually: Callable[..., Awaitable[Any]],
    tmp_path: Path,
) -> None:
    agent = make_agent()
    await agent.start(PATIENT)
    (folder := tmp_path / "bot").mkdir()
    unit = tmp_path / "my bot.service"
    unit.write_text(
        f"[Service]\nExecStart={sys.executable} {BOT} quiet\nWorkingDirectory={folder}\n"
        "Environment=TOKEN=hunter2hunter2\nRestart=always\n"
    )
    before = (unit.read_text(), agent.config.read_text())
    words = ("import", unit, "--config", agent.config)
    status, said = await cli(agent, *words, "--dry-run")
    assert (status, "TOKEN=***" in said, "hunter2" in said) == (0, True, False), said
    for more in (("shop",), ("--enable",), ("--replace",), ("--dump", unit)):
        status, said = await cli(agent, *words[:2], *more, *words[2:])
        assert (status, said.count("\n")) == (2, 1), said
    assert (unit.read_text(), agent.config.read_text()) == before
    (wrong := tmp_path / "wrong").write_text("TOKEN=hunter2hunter2\nno such line\n")
    unit.write_text(f"{before[0]}EnvironmentFile={wrong}\n")
    status, said = await cli(agent, *words)
    refused = f"it does not move: cannot use line 2 of {wrong} (environment_file)"
    assert (status, refused in said, "systemctl" in said) == (1, True, False), said
    assert agent.config.read_text() == before[1]
    unit.write_text(before[0])
    agent.config.chmod(0o644)
    status, said = await cli(agent, *words)
    assert status == 0, said
    assert f"read the values in it: chmod o-r {agent.config} " in said
    line = "systemctl disable --now 'my bot.service' && wa-agent enable my-bot"
    assert line in said
    assert (await agent.show("my-bot"))["enabled"] is False
    assert unit.read_text() == before[0]
    status, again = await cli(agent, *words)
    assert (status, "0 [[program]] added" in again, line in again) == (0, True, True), again
    await agent.do("POST", "/api/instance/my-bot/enable")

    async def reason() -> str:
        return str((await agent.show("my-bot"))["health"]["reason"])

    await eventually(reason, "not_told")
