"""[[program]]: what it may say, what is shown of it, which session gets which row."""

import json
from pathlib import Path

import pytest

from agent.cli.client import Client, Installation
from agent.config.config import Config, check_declared, without_secrets
from agent.config.load import load_config
from agent.core.model import Instance, InstanceId
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.moving.program_commands import examine
from agent.moving.programs import programs_of, render_drop_in

IDS = ("shop", "till")
GOOD = '[[program]]\nname = "shopbot"\ncommand = ["node", "/srv/shopbot/bot.js"]\n'


def load(folder: Path, text: str) -> Config:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_config(path, {})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('name = "Shop Bot"', "program[0].name"),
        ("command = []", "every [[program]] needs it"),
        ('command = ["./bot"]', "a name or an absolute path"),
        ('folder = "/srv/../etc"', "an absolute path"),
        ('environment = ["TOKEN"]', "entry 1: it must be NAME=VALUE"),
        ('environment = ["A=b", "WA_PROGRAM_FD=3"]', "entry 2: WA_PROGRAM_FD is the worker's"),
        ('session = "../other"', "a path without .."),
        ("shell = true", "there is no such key"),
    ],
)
def test_a_wrong_program_is_refused_with_its_key(tmp_path: Path, line: str, words: str) -> None:
    kept = [its for its in GOOD.splitlines() if not its.startswith(line.split(maxsplit=1)[0])]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "\n".join([*kept, line]))
    assert words in str(caught.value)


def test_no_value_of_an_environment_is_shown(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + 'environment = ["TOKEN=hidden", "PORT=3000"]\n')
    (shown,) = programs_of(without_secrets(config))
    assert shown.environment == ("TOKEN=***", "PORT=***")
    assert "hidden" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD + 'environment = ["2 = hidden"]\n')
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ("", []),
        ('folder = "/srv/shopbot"\n', ["BindPaths=/srv/shopbot"]),
        (
            'environment_file = "/etc/wa-agent/bot.env"\n',
            ["BindReadOnlyPaths=/etc/wa-agent/bot.env"],
        ),
        ('folder = "/srv/my 100% bot"\n', ['BindPaths="/srv/my 100%% bot"']),
        ('folder = "/home/deploy/bot"\n', ["ProtectHome=tmpfs", "BindPaths=/home/deploy/bot"]),
    ],
)
def test_a_drop_in_shows_just_what_the_unit_hides(
    tmp_path: Path, more: str, lines: list[str]
) -> None:
    (program,) = programs_of(load(tmp_path, GOOD.replace('"node"', '"/usr/bin/env"') + more))
    assert render_drop_in(program).splitlines()[2:] == lines


@pytest.mark.parametrize(
    ("mine", "other", "refused"),
    [
        ('folder = "{0}/bot"', 'folder = "{0}/up/link/"', True),
        ('session = "/srv/keys"', 'session = "/srv/keys/"\nfolder = "/srv"', True),
        ('folder = "{0}/bot"\nsession = "auth"', 'folder = "{0}/bot"\nsession = "auth"', False),
        ('folder = "{0}/bot"', 'folder = "/srv/tillbot"', False),
        ('folder = "/srv"\nenvironment = ["N=1"]', 'folder = "/srv"\nenvironment = ["N=2"]', False),
    ],
)
def test_a_place_of_one_session_gets_no_second_instance(
    tmp_path: Path, mine: str, other: str, refused: bool
) -> None:
    """Whatever its folder is called."""
    (tmp_path / "bot").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "bot")
    (tmp_path / "up").symlink_to(tmp_path)
    rows = (GOOD, mine, "\n", GOOD.replace('"shopbot"', '"tillbot"'), other)
    config = load(tmp_path, "".join(rows).replace("{0}", str(tmp_path)))
    shop, till = (Instance(InstanceId(id), "program", True, {"program": f"{id}bot"}) for id in IDS)
    check_declared(config, shop, [shop, Instance(InstanceId("a"), "sandbox", True)])
    if refused:
        with pytest.raises(Refused, match="program shopbot: till has") as caught:
            check_declared(config, shop, [shop, till])
        assert (caught.value.code, caught.value.field) == ("session_shared", "settings.program")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "its command, folder and files are there"),
        ('folder = "/no/such"\n', "there is no such folder"),
        ('environment = ["TOKEN=x"]\n', "a file open to all users"),
    ],
)
def test_doctor_looks_at_each_program(tmp_path: Path, more: str, words: str) -> None:
    config = load(tmp_path, '[[program]]\nname = "shop"\ncommand = ["/bin/sh"]\n' + more)
    (tmp_path / "agent.toml").chmod(0o644)
    (finding,) = examine(Installation(config, Client(), tmp_path / "agent.toml"))
    assert words in finding.sentence


@pytest.mark.parametrize("key", ["folder", "session", "environment_file"])
def test_a_path_cannot_become_a_line_of_a_unit(tmp_path: Path, key: str) -> None:
    """Root puts the printed text into a unit; the names may be those of a user without rights."""
    path = "/srv/x\nExecStartPre=+/bin/touch /PWNED\n#"
    with pytest.raises(ConfigError, match="control characters"):
        programs_of(load(tmp_path, GOOD + f"{key} = {json.dumps(path)}\n"))
    command = ("/usr/bin/node", "/home/bob/x\nExecStartPre=+/bin/touch /PWNED\n/bot.js")
    with pytest.raises(InvalidRequest, match="control characters"):
        render_drop_in(ProgramDeclaration(name="shop", command=command))


@pytest.mark.parametrize("folder", ["/", "/var/lib/wa-agent/sessions"])
def test_no_drop_in_shows_a_program_the_agents_own_files(folder: str) -> None:
    program = ProgramDeclaration(name="shop", command=("/usr/bin/env",), folder=folder)
    with pytest.raises(InvalidRequest, match="the agent's own files"):
        render_drop_in(program)
