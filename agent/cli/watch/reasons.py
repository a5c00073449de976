"""`wa-agent reasons`: why sessions end, and what the agent does about each reason."""

import argparse

from agent.cli.command import Subparsers, add_command, wants_json
from agent.cli.terminal.show import print_json, print_table
from agent.core.reasons import reasons_table

_HEADS = ("reason", "what it means", "what the agent does", "delay", "status", "what to do")


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "reasons",
        reasons,
        "list the reasons why sessions end, with the agent's action for each",
        "wa-agent reasons",
    )
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")


def reasons(options: argparse.Namespace) -> int:
    if wants_json(options):
        print_json([dict(zip(_keys(), row, strict=True)) for row in reasons_table()])
    elif options.markdown:
        print(markdown_table(), end="")
    else:
        print_table([head.upper() for head in _HEADS], reasons_table())
    return 0


def markdown_table() -> str:
    rows = [_HEADS, tuple("---" for _ in _HEADS)]
    rows += [(f"`{code}`", *rest) for code, *rest in reasons_table()]
    return "".join("| " + " | ".join(_cell(cell) for cell in row) + " |\n" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _keys() -> tuple[str, ...]:
    return ("code", "title", "does", "delay", "status", "advice")
