"""How a command is declared: its name, its words, its example, its function."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from agent.cli.client import Client
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest

Run = Callable[[argparse.Namespace], int]
Subparsers = Any
"""argparse has no public name for what add_subparsers() gives."""


class Group(Protocol):
    """A module of commands."""

    def add(self, commands: Subparsers, /) -> None: ...


def add_command(
    among: Subparsers, name: str, run: Run, summary: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = among.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_common(parser)
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Subparsers, name: str, summary: str, example: str) -> Subparsers:
    """A word that is followed by a command of its own."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser.add_subparsers(metavar="COMMAND", required=True)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Accepted before and after the command's name alike."""
    common = parser.add_argument_group("everywhere")
    missing = argparse.SUPPRESS
    common.add_argument("--json", action="store_true", default=missing, help="print JSON")
    common.add_argument("--socket", metavar="PATH", default=missing, help="the agent's Unix socket")
    common.add_argument("--url", default=missing, help="ask http://HOST:PORT instead")
    common.add_argument(
        "--key", default=missing, help="the key for --url; better: the variable WA_AGENT_KEY"
    )


def add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=instance_id, help="the instance")


def instance_id(text: str) -> str:
    try:
        return parse_instance_id(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def wants_json(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "json", False))


def client_of(options: argparse.Namespace) -> Client:
    named = getattr(options, "socket", None)
    url = getattr(options, "url", None) or ("" if named else os.environ.get("WA_AGENT_URL", ""))
    return Client(
        url=url,
        key=getattr(options, "key", None) or os.environ.get("WA_AGENT_KEY", ""),
        sockets=(Path(named),) if named else (),
    )
