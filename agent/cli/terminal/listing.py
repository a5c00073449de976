"""How every list is printed: as JSON, as bare names, by a word where it is empty, as a table."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from agent.cli.command import wants_json
from agent.cli.terminal.show import print_json, print_table

One = dict[str, Any]
"""As the API gave it."""


def print_list(
    options: argparse.Namespace,
    found: Sequence[One],
    heads: Sequence[str],
    row: Callable[[One], Sequence[object]],
    *,
    nothing: str,
    bare: str = "",
) -> None:
    """`bare`: the one field that is wanted, a line each, as shell completion asks for it."""
    if wants_json(options):
        print_json(found)
    elif bare:
        for one in found:
            print(one[bare])
    elif not found:
        print(nothing)
    else:
        print_table(heads, [row(one) for one in found])
