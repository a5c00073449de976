"""The help of each command has an example, and words that can be copied."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from agent.cli.backends.command import spelled_out
from agent.cli.groups import modules, sections
from agent.cli.main import build_parser
from agent.cli.sessions.sandbox import FAULTS_SHOWN
from agent.engines.sandbox.faults import FAULTS


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from commands_of(command)


PARSER = build_parser()
EVERY = {command.prog: command for command in commands_of(PARSER)}


def read_example(prog: str) -> argparse.Namespace:
    line = EVERY[prog].format_help().rpartition("example:\n")[2].splitlines()[0]
    words = shlex.split(re.split(r" [>|] ", line)[0])
    return PARSER.parse_args(spelled_out(words[1:]))


def test_each_command_stands_under_one_title_and_ten_of_every_day_come_first() -> None:
    sorted_in = [word for words in sections().values() for word in words.split()]
    commands = {word for words, _ in modules() for word in words.split()}
    assert sorted(sorted_in) == sorted(commands)
    assert len(sections()["every day"].split()) == 10
    shown = PARSER.format_help()
    places = [shown.index(f"\n{title}:\n") for title in sections()]
    assert places == sorted(places)
    listed = re.findall(r"^  ([a-z-]+) ", shown[places[0] :].partition("exit statuses")[0], re.M)
    assert listed == sorted_in


@pytest.mark.parametrize("prog", EVERY)
def test_every_command_shows_an_example_of_itself(prog: str) -> None:
    shown = EVERY[prog].format_help()
    assert f"example:\n  {prog}" in shown
    assert not shown.endswith("None")


@pytest.mark.parametrize("prog", EVERY)
def test_the_example_of_a_command_is_a_call_of_it(prog: str) -> None:
    example = read_example(prog)
    assert not getattr(example, "key", ""), "--key is the key of the API"


def test_the_drills_are_all_named_and_none_is_broken_in_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert sorted(FAULTS_SHOWN.split()) == sorted(FAULTS)
    words = EVERY["wa-agent sandbox fault"].format_help().split()
    assert set(FAULTS) <= set(words)
