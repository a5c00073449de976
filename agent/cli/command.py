"""Declares a command: its name, its function, its summary, its example, its arguments."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.cli.client import Client
from agent.core.words import ID_PATTERN, parse_instance_id
from agent.errors import InvalidRequest

Run = Callable[[argparse.Namespace], int]
Subparsers = Any
"""argparse has no public name for what add_subparsers() gives."""


Words = Mapping[str, str | tuple[str, dict[str, Any]]]
"""The arguments of a command, each with its help: `--flag`, `--option METAVAR`, `NAME`, `[NAME]` if
it may be left out, `dest=NAME`. In a pair also what argparse takes besides."""

CONFIG: Words = {
    "--config FILE": "agent.toml",
    "--state DIR": "the state directory",
    "--listen HOST:PORT": 'the HTTP address; "" = none',
}
"""Options for the settings that a command reads, and those that it sets over them."""


def add_command(
    among: Subparsers,
    name: str,
    run: Run,
    summary: str = "",
    example: str = "",
    *,
    words: Words = MappingProxyType({}),
) -> argparse.ArgumentParser:
    """`summary`: default: the docstring of `run`. `example`: what follows the command there."""
    parser = _add_parser(among, name, summary or run.__doc__ or "", example)
    add_words(parser, words)
    add_common(parser)
    parser.set_defaults(run=run)
    return parser


def add_instance_command(
    among: Subparsers,
    name: str,
    run: Run,
    summary: str = "",
    example: str = "",
    *,
    words: Words = MappingProxyType({}),
) -> argparse.ArgumentParser:
    """A command about one instance: its id comes first, `sales` in the example."""
    id: Words = {"ID": ("the instance", {"type": parse_instance_id})}
    return add_command(among, name, run, summary, f"sales {example}", words={**id, **words})


def add_group(commands: Subparsers, name: str, summary: str, example: str) -> Subparsers:
    """A word that is followed by a command of its own."""
    parser = _add_parser(commands, name, summary, example)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _add_parser(
    among: Subparsers, name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    text = " ".join(summary.split()).rstrip(".")
    parser: argparse.ArgumentParser = among.add_parser(
        name,
        help=text[0].lower() + text[1:],
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.epilog = f"example:\n  {parser.prog} {example}".rstrip()
    return parser


_NAMES = {"NAME": "copy", "KEY": "key"}
"""Words for what the agent named, which become a part of an address."""


def add_words(parser: argparse._ActionsContainer, words: Words) -> None:
    for word, told in words.items():
        text, more = told if isinstance(told, tuple) else (told, {})
        if more.get("type") is float:
            more = {**more, "type": seconds}  # of all that take a number with a point
        names, _, metavar = word.partition(" ")
        if not word.startswith("-"):
            dest, _, shown = names.rpartition("=")
            more = {"nargs": "?", **more} if shown.startswith("[") else more
            shown = shown.strip("[]")
            if shown in _NAMES:
                more = {"type": name_of_a(_NAMES[shown], "[A-Za-z0-9._-]{1,96}"), **more}
            parser.add_argument(dest or shown.lower(), metavar=shown, help=text, **more)
        else:
            how: dict[str, Any] = {"metavar": metavar} if metavar else {"action": "store_true"}
            parser.add_argument(*names.split("/"), help=text, **how, **more)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Accepted before and after the command's name alike; the program's parser has the defaults."""
    missing = {"default": argparse.SUPPRESS}
    words: Words = {
        "--json": ("print JSON", missing),
        "--socket PATH": ("the agent's Unix socket", missing),
        "--url URL": ("ask http://HOST:PORT instead", missing),
        "--key KEY": ("the key for --url; better: the variable WA_AGENT_KEY", missing),
    }
    add_words(parser.add_argument_group("everywhere"), words)


def seconds(text: str) -> float:
    if not 0 <= (given := float(text)) < 1e9:
        raise ValueError
    return given


def name_of_a(thing: str, pattern: str = ID_PATTERN) -> Callable[[str], str]:
    """Reads a name that becomes a part of an address: no other letters are allowed."""

    def read(text: str) -> str:
        if re.fullmatch(pattern, text) and text.strip("."):
            return text
        raise InvalidRequest(f"cannot use {text!r:.80} as the name of a {thing}")

    return read


def client_of(options: argparse.Namespace) -> Client:
    return Client(
        url=options.url or ("" if options.socket else os.environ.get("WA_AGENT_URL", "")),
        key=options.key or os.environ.get("WA_AGENT_KEY", ""),
        sockets=(Path(options.socket),) if options.socket else (),
    )


def given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
