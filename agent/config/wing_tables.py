"""The tables of agent.toml that the wings bring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from agent.config.config import Config
from agent.config.problem import Problem
from agent.wing import modules_of, wings


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTable:
    """A table that is written once: [NAME]. A config has one row of it, or none, which is as
    `plain`."""

    name: str
    plain: Any
    head: str
    """What the example file says above it."""
    worker: tuple[str, ...] = ()
    """The keys that the wing's part in each worker gets."""


WingTable = ArrayTable | OwnTable


@cache
def wing_tables() -> Mapping[str, WingTable]:
    """By name."""
    return {table.name: table for module in modules_of("settings") for table in module.TABLES}


def own_row(config: Config, table: OwnTable) -> Any:
    """The settings in force."""
    return next(iter(config.of_wings.get(table.name, ())), table.plain)


def worker_settings(config: Config) -> Mapping[str, Any]:
    """What the part of each wing in a worker gets, by the wing's name; none where it is usual."""
    found: dict[str, Any] = {}
    for wing in wings():
        tables = wing.take(wing.settings).TABLES if wing.settings else ()
        for table in tables:
            if isinstance(table, OwnTable):
                row = own_row(config, table)
                for key in table.worker:
                    if (value := getattr(row, key)) != getattr(table.plain, key):
                        found.setdefault(wing.name, {})[key] = value
    return found
