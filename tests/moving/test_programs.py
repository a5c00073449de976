"""[[program]]: what it may say, what is shown of it, which session gets which row."""

import json
from pathlib import Path

import pytest

from agent.config import Config, load_config
from agent.config.render import without_secrets
from agent.config.wing_tables import check_declared, declared_for, shared_sessions
from agent.core.model import Instance, InstanceId
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.moving.programs import programs_of, render_drop_in

GOOD = '[[program]]\nname = "shopbot"\ncommand = ["node", "/srv/shopbot/bot.js"]\n'


def load(folder: Path, text: str) -> Config:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_config(path, {})


def shop(**settings: str) -> Instance:
    return Instance(InstanceId("shop"), "program", True, settings)


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


def test_a_session_gets_the_row_that_it_names_and_no_other(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD + GOOD.replace("shopbot", "tillbot"))
    row = declared_for(config, shop(program="tillbot"))["program"]
    assert (row["name"], row["command"]) == ("tillbot", ["node", "/srv/tillbot/bot.js"])
    assert declared_for(config, shop(program="else")) == {}
    assert declared_for(config, Instance(InstanceId("a"), "sandbox", True)) == {}
    check_declared(config, shop(program="shopbot"))
    for settings in ({}, {"program": "else"}):
        with pytest.raises(InvalidRequest, match="declared: shopbot, tillbot") as caught:
            check_declared(config, shop(**settings))
        assert (caught.value.code, caught.value.field) == ("unknown_program", "settings.program")


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


SHARED = 'folder = "/srv/shopbot"\n'


@pytest.mark.parametrize(
    ("mine", "other", "refused"),
    [
        (SHARED, SHARED, True),
        ('session = "/srv/keys"\n', 'session = "/srv/keys/"\nfolder = "/srv"\n', True),
        (SHARED + 'session = "auth"\n', SHARED + 'session = "auth"\n', False),
        (SHARED, 'folder = "/srv/tillbot"\n', False),
        (SHARED + 'environment = ["N=1"]\n', SHARED + 'environment = ["N=2"]\n', False),
    ],
)
def test_a_place_of_one_session_gets_no_second_instance(
    tmp_path: Path, mine: str, other: str, refused: bool
) -> None:
    config = load(tmp_path, GOOD + mine + GOOD.replace('"shopbot"', '"tillbot"') + other)
    till = Instance(InstanceId("till"), "program", False, {"program": "tillbot"})
    rest = [shop(program="shopbot"), till, Instance(InstanceId("a"), "sandbox", True)]
    check_declared(config, rest[0], [rest[0], rest[2]])
    if not refused:
        check_declared(config, rest[0], rest)
        return
    with pytest.raises(Refused, match=r"cannot run shop as program shopbot: till has") as caught:
        check_declared(config, rest[0], rest)
    assert (caught.value.code, caught.value.field) == ("session_shared", "settings.program")


def test_another_name_of_a_folder_is_no_other_place(tmp_path: Path) -> None:
    (folder := tmp_path / "bot").mkdir()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "up").symlink_to(tmp_path)
    till = Instance(InstanceId("till"), "program", True, {"program": "tillbot"})
    here, other = f'folder = "{folder}"\n', GOOD.replace('"shopbot"', '"tillbot"')
    for name in ("link", "up/bot", "up/link/", "./bot"):
        config = load(tmp_path, GOOD + here + other + f'folder = "{tmp_path}/{name}"\n')
        with pytest.raises(Refused, match="one session must not run twice"):
            check_declared(config, till, [shop(program="shopbot")])
        assert [*shared_sessions(config, [till, shop(program="shopbot")])] == [("shop", "till")]


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
