"""How every answer is printed: as JSON where it is wanted, else as lines or as a table."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from agent.cli.command import wants_json
from agent.cli.terminal.show import print_json, table_lines

Row = dict[str, Any]
"""As the API gave it."""


def print_answer(options: argparse.Namespace, answer: Any, *lines: str, good: bool = True) -> int:
    """Empty lines are left out; returns the exit status: 0, or 1 without `good`."""
    if wants_json(options):
        print_json(answer)
    else:
        for line in filter(None, lines):
            print(line)
    return 0 if good else 1


def print_list(
    options: argparse.Namespace,
    rows: Sequence[Row],
    heads: Sequence[str],
    cells: Callable[[Row], Sequence[object]],
    *,
    nothing: str,
    bare: str = "",
) -> int:
    """`bare`: the one field to print, a line for each row."""
    if bare:
        return print_answer(options, rows, *(str(row[bare]) for row in rows))
    lines = table_lines(heads, [cells(row) for row in rows]) if rows else [nothing]
    return print_answer(options, rows, *lines)


def ask(question: str) -> str:
    """The line that a person typed; "" where the standard input is no terminal."""
    if not sys.stdin.isatty():
        return ""
    try:
        return input(question).strip()
    except EOFError:
        return ""
