"""A wing is a capability that the base can do without: a folder below agent/wings. Its module
`door` says what it brings; the base reads the doors and names no wing, and runs without them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

WINGS = "agent.wings"
ROOMS = ("agent.webhooks",)
"""Rooms with a door that are no wings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wing:
    """What a wing brings. Each text is the name of one of its modules, which is imported when it
    is needed; "" = it brings none."""

    name: str
    """Its folder."""
    package: str = ""
    """The package that holds its modules; "" = that folder below agent/wings."""
    settings: str = ""
    """Has TABLES: its tables of agent.toml."""
    part: str = ""
    """Has `open_part`: what runs in the agent."""
    folder: str = ""
    """What workers keep for it beside the session's files: a folder that stays with the session
    when these are replaced, and that no copy of them has."""
    routes: str = ""
    """Has ROUTES: its rows of the table of routes."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Each module of commands, with its words."""
    title: str = ""
    """The section of the help that has its commands: one of the base's, or its own."""
    doctor: str = ""
    """Has `checks`: those of an installation."""
    bundle: Mapping[str, str] = field(default_factory=dict)
    """For the archive of doctor: a file's name → the path that gives its content."""
    described: str = ""
    """The path that lists all routes, for clients' programmers."""
    panels: tuple[str, ...] = ()
    """Scripts in its folder `page` that export `makePanel`: panels of the dashboard's page of the
    agent."""

    def take(self, module: str) -> ModuleType:
        return import_module(f"{self.package or f'{WINGS}.{self.name}'}.{module}")

    def file(self, name: str) -> Path:
        return Path(str(self.take("door").__file__)).with_name(name)


@cache
def wings() -> tuple[Wing, ...]:
    """Those whose folder is there, by name; then the rooms."""
    found = iter_modules(import_module(WINGS).__path__)
    packages = (*(f"{WINGS}.{one.name}" for one in found if one.ispkg), *ROOMS)
    return tuple(import_module(f"{package}.door").WING for package in packages)


def described_at() -> str:
    """The path that lists all routes; "" without one."""
    return next((wing.described for wing in wings() if wing.described), "")


@cache
def kept_folders() -> tuple[str, ...]:
    return tuple(wing.folder for wing in wings() if wing.folder)


def modules_of(kind: str) -> Iterator[ModuleType]:
    """The modules of one kind, such as `routes`, of all wings that bring one."""
    for wing in wings():
        if name := getattr(wing, kind):
            yield wing.take(name)
