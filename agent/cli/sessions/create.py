"""`wa-agent create`."""

import argparse
from typing import Any

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.sessions.settings import add_settings, parse_settings
from agent.cli.sessions.waiting import add_wait, wait_and_print


def add(commands: Subparsers) -> None:
    summary = "create an instance"
    parser = add_instance_command(commands, "create", create, summary, "--engine sandbox")
    parser.add_argument("--engine", required=True, help="engine that connects it to WhatsApp")
    add_place(parser)
    parser.add_argument("--disabled", action="store_true", help="create it without running it")
    words = "the [[program]] of agent.toml that runs as it"
    parser.add_argument("--program", metavar="NAME", help=words)
    add_settings(parser)
    add_wait(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", metavar="NAME", help="the backend that runs its session")
    parser.add_argument("--remote", metavar="NAME", help="its name on the backend; default: the id")


def place_of(options: argparse.Namespace) -> dict[str, str]:
    return {k: v for k in ("backend", "remote") if (v := getattr(options, k)) is not None}


def create(options: argparse.Namespace) -> int:
    if options.program is not None:
        options.set = [*options.set, f"program={options.program}"]
    client = client_of(options)
    instance = client.post("/api/instance", wanted(options))
    done = "created, disabled" if options.disabled else "created"
    return wait_and_print(client, options, instance, done)


def wanted(options: argparse.Namespace) -> dict[str, Any]:
    """The body of the request."""
    return {
        "id": options.id,
        "engine": options.engine,
        "enabled": not options.disabled,
        "settings": parse_settings(options.set),
        **place_of(options),
    }
