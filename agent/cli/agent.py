"""The agent's own commands: run it, run a worker, print the version."""

import argparse
import gc
import os
from pathlib import Path

from agent import BUILD, VERSION
from agent.cli.client import checkout, config_path
from agent.cli.command import Subparsers, add_command, config_words
from agent.cli.terminal import print_answer


def add(commands: Subparsers) -> None:
    example = "--state .state --listen 127.0.0.1:8470"
    add_command(commands, "run", run, example=example, words=config_words())
    add_command(commands, "worker", worker, example="sales", words={"ID": "the instance"})
    add_command(commands, "version", version)


def run(options: argparse.Namespace) -> int:
    """Run the agent in the foreground."""
    # The agent's libraries cost every other command half a second. No collection needs to look at
    # what is imported: it stays for as long as the agent runs.
    gc.disable()
    from agent.daemon.main import main

    gc.freeze()
    gc.enable()
    return main(config_path(options.config, os.environ), overrides_of(options))


def given_settings(options: argparse.Namespace) -> dict[str, str]:
    """The settings that the command line gives."""
    settings = {}
    if options.state is not None:
        settings["agent.state_path"] = str(Path(options.state).absolute())
    if options.listen is not None:
        settings["api.listen"] = options.listen
    return settings


def overrides_of(options: argparse.Namespace) -> dict[str, str]:
    """The settings over those of the file; a checkout has its state in its own folder."""
    top = checkout()
    in_checkout = top is not None and config_path(options.config, os.environ) is None
    named = options.state is not None or "WA_AGENT_AGENT__STATE_PATH" in os.environ
    state = {"agent.state_path": f"{top}/.state"} if in_checkout and not named else {}
    return {**state, **given_settings(options)}


def worker(options: argparse.Namespace) -> int:
    """Run one instance's worker."""
    from agent.worker.__main__ import main

    return main([options.id])


def version(options: argparse.Namespace) -> int:
    """Print the version."""
    return print_answer(options, {"version": VERSION, "build": BUILD}, version_line())


def version_line() -> str:
    return f"wa-agent {VERSION}, {BUILD}" if BUILD else f"wa-agent {VERSION}"
