"""Bots that pm2 runs, as rows of [[program]]. It changes nothing."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent.engines.program.declaration import ProgramDeclaration

LARGEST = 16 << 20


@dataclass(slots=True)
class Bot:
    """What one name of pm2 runs."""

    name: str
    programs: list[ProgramDeclaration] = field(default_factory=list)
    """Of each of its processes."""
    memory_limit: int = 0
    taken: list[str] = field(default_factory=list)
    """What only pm2 has as a rule, and it keeps here."""
    notes: list[str] = field(default_factory=list)
    """What has no counterpart here."""
    refused: str = ""
    """Why it does not move, all of it or from some process on."""


def render(bots: Iterable[Bot]) -> str:
    """Tables for agent.toml, each with what it leaves out above it."""
    import tomli_w

    parts = []
    for bot in bots:
        for number, program in enumerate(bot.programs):
            lines = [f"# {plain_line(bot.name)} of pm2."]
            lines += [f"# Not taken over: {note}" for note in bot.notes if not number]
            parts.append("\n".join(lines) + "\n" + tomli_w.dumps({"program": [as_row(program)]}))
    return "\n".join(parts)


def as_row(program: ProgramDeclaration) -> dict[str, Any]:
    """What differs from the defaults."""
    plain = ProgramDeclaration()
    row = {
        "name": program.name,
        "command": list(program.command),
        "folder": program.folder,
        "environment": list(program.environment),
        "environment_file": program.environment_file,
        "pm2": program.pm2 if program.pm2 != plain.pm2 else None,
        "watchdog": program.watchdog,
        "stop": program.stop if program.stop != plain.stop else None,
    }
    return {key: value for key, value in row.items() if value}


def free_id(name: str, taken: Iterable[str]) -> str:
    """A name in the letters of an id that none of these is."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40] or "bot"
    others = set(taken)
    ids = (plain, *(f"{plain}-{number}" for number in range(2, 10_000)))
    return next(id for id in ids if id not in others)


def plain_line(value: object) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in str(value))[:200]
