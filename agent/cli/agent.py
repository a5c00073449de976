"""The agent's own commands: run it, run a worker, say the version."""

import argparse
import os
from pathlib import Path

from agent import VERSION
from agent.cli.command import Subparsers, add_command, wants_json
from agent.cli.places import checkout, config_path
from agent.cli.terminal.show import print_json


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "run",
        run,
        "run the agent in the foreground",
        "wa-agent run --state .state --listen 127.0.0.1:8470",
    )
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    parser.add_argument("--state", metavar="DIR", help="the state directory")
    parser.add_argument("--listen", metavar="HOST:PORT", help='the HTTP address; "" = none')
    parser = add_command(
        commands, "worker", worker, "run one instance's worker", "wa-agent worker sales"
    )
    parser.add_argument("id", metavar="ID", help="the instance")
    add_command(commands, "version", version, "print the version", "wa-agent version")


def run(options: argparse.Namespace) -> int:
    # The agent's libraries cost every other command a tenth of a second.
    from agent.daemon import main

    return main(config_path(options.config, os.environ), overrides_of(options))


def overrides_of(options: argparse.Namespace) -> dict[str, str]:
    """What the command line says over the file; a checkout keeps its state to itself."""
    found = {}
    if options.state is not None:
        found["agent.state_path"] = str(Path(options.state).absolute())
    elif (
        (top := checkout()) is not None
        and config_path(options.config, os.environ) is None
        and "WA_AGENT_AGENT__STATE_PATH" not in os.environ
    ):
        found["agent.state_path"] = str(top / ".state")
    if options.listen is not None:
        found["api.listen"] = options.listen
    return found


def worker(options: argparse.Namespace) -> int:
    from agent.worker.__main__ import main

    return main([options.id])


def version(options: argparse.Namespace) -> int:
    if wants_json(options):
        print_json({"version": VERSION})
    else:
        print(f"wa-agent {VERSION}")
    return 0
