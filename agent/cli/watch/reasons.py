"""`wa-agent reasons`: the reasons why sessions end, with the agent's action for each."""

import argparse

from agent.cli.command import Subparsers, add_command
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import table_lines
from agent.core.reasons import reasons_table

_KEYS = ("code", "title", "does", "delay", "status", "advice")
_HEADS = ("reason", "meaning", "action of the agent", "delay", "status", "advice")


def add(commands: Subparsers) -> None:
    summary = "list the reasons why sessions end, with the agent's action for each"
    parser = add_command(commands, "reasons", reasons, summary)
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")


def reasons(options: argparse.Namespace) -> int:
    table = reasons_table()
    lines = table_lines([head.upper() for head in _HEADS], table)
    return print_answer(
        options,
        [dict(zip(_KEYS, row, strict=True)) for row in table],
        *(markdown_lines() if options.markdown else lines),
    )


def markdown_lines() -> list[str]:
    rows = [_HEADS, tuple("---" for _ in _HEADS)]
    rows += [(f"`{code}`", *rest) for code, *rest in reasons_table()]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
