"""The tables of agent.toml that the wings bring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from agent.config.problem import Problem
from agent.wing import modules_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayTable:
    """A table that is written once for each thing of a kind: [[NAME]]."""

    name: str
    plain: Any
    """One row with its defaults."""
    find_problem: Callable[[Sequence[Any]], Problem | None]
    hide: Callable[[Any], Any]
    """The row as it may be shown."""
    head: str
    """What the example file says above it."""
    example: Any
    """A row that could be used."""


@cache
def wing_tables() -> Mapping[str, ArrayTable]:
    """By name."""
    return {table.name: table for module in modules_of("settings") for table in module.TABLES}
