"""The help of each command has an example, and words that can be copied."""

import argparse
from collections.abc import Iterator

import pytest

from agent.cli.main import build_parser
from agent.cli.sessions.sandbox import FAULTS_SHOWN
from agent.engines.sandbox.faults import FAULTS


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield each
                yield from commands_of(each)


EVERY = {one.prog: one for one in commands_of(build_parser())}


@pytest.mark.parametrize("prog", EVERY)
def test_every_command_shows_an_example_of_itself(prog: str) -> None:
    shown = EVERY[prog].format_help()
    assert f"example:\n  {prog}" in shown
    assert not shown.endswith("None")


def test_the_drills_are_all_named_and_none_is_broken_in_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert sorted(FAULTS_SHOWN.split()) == sorted(FAULTS)
    words = EVERY["wa-agent sandbox fault"].format_help().split()
    assert set(FAULTS) <= set(words)
