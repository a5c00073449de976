"""Each command's module is imported with its word, and the table of words is right."""

import argparse
import subprocess
import sys
from collections.abc import Callable

import pytest

from agent.cli.command import Group
from agent.cli.groups import WORDS, group_of, modules

Take = Callable[[], Group]


@pytest.mark.parametrize(("words", "take"), list(modules()))
def test_the_table_has_the_commands_that_a_module_adds(words: str, take: Take) -> None:
    group = take()
    commands = argparse.ArgumentParser().add_subparsers()
    group.add(commands)
    assert list(commands.choices) == words.split()
    assert all(group_of(word) is group for word in commands.choices)


@pytest.mark.parametrize("word", ["", "--json", "lis"])
def test_what_is_no_command_of_one_module_is_answered_by_all(word: str) -> None:
    assert group_of(word) is None


def test_a_command_imports_no_other_ones_module() -> None:
    probe = (
        "import sys; from agent.cli.main import run; run(['list', '--help']);"
        "print(*(name for name in sys.modules if name.startswith('agent.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    found = {name.removeprefix("agent.cli.") for name in done.stdout.splitlines()[-1].split()}
    # `backends NAME` is read before the words of the others; `agent` knows the version.
    assert found & set(WORDS) == {"agent", "backends.command", "sessions.views"}
