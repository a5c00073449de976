"""Draws the house from the code, `scripts/check --picture`: agent/house.svg.

A room stands above all that it may import (pyproject.toml has the order); its bar is as long as its
code, darker where it belongs to the base; a dot marks each room that it does import.
"""

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

import grimp

from scripts.house import AGENT, BASE, NOT_BASE, lines_of, modules_of

PICTURE = AGENT / "house.svg"
SUBJECTS = {
    "wings": "what the agent can do without",
    "cli": "the commands",
    "daemon": "the agent's process",
    "worker": "the process of a session",
    "api": "HTTP and the dashboard",
    "supervise": "the shell around the core",
    "deliver": "events go out",
    "metrics": "what Prometheus reads",
    "host": "systemd, processes, the machine",
    "link": "the wire to workers",
    "store": "SQLite",
    "vault": "session files and their copies",
    "config": "agent.toml",
    "engines": "ways to reach WhatsApp",
    "core": "what decides, and does nothing",
}
_SMALL, _SMALL_ONES = "small ones", "log, redaction, files, clock, errors"
_LEAST = 500
"""Lines: the figures are rounded to these, and a room with fewer is drawn with its like."""
_ROW, _TOP, _BAR, _LINES_A_PIXEL, _CELL = 26, 96, 330, 26.0, 20
_STYLE = """
svg { font: 13px system-ui, sans-serif; --paper: #fdfcf9; --ink: #1c2422; --soft: #5d6a66;
  --line: #d9d5cb; --base: #1d7a5f; --more: #9cc7b8; --dot: #b4552d }
@media (prefers-color-scheme: dark) { svg { --paper: #14181a; --ink: #e8e6e1; --soft: #98a39f;
  --line: #333b3d; --base: #3fb592; --more: #2b5b4d; --dot: #e08a5b } }
.paper { fill: var(--paper) } text { fill: var(--ink) }
.soft { fill: var(--soft); font-size: 11px }
.title { font-size: 17px; font-weight: 600 } .room { font-weight: 600 }
.line { stroke: var(--line) }
.base { fill: var(--base) } .more { fill: var(--more) } .dot { fill: var(--dot) }
.roof { fill: none; stroke: var(--soft); stroke-width: 2; stroke-linejoin: round }
"""


@dataclass(frozen=True, slots=True)
class Room:
    name: str
    storey: int
    base: int
    more: int
    """Lines of code, rounded: of the base, and of what an operator may not need."""


def storeys() -> list[list[str]]:
    """The rooms from the top to the ground, those of one height together."""
    text = (AGENT.parent / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    [order] = [it["layers"] for it in contracts if it["name"] == "imports go down"]
    return [[name.strip().removeprefix("agent.") for name in layer.split("|")] for layer in order]


def rooms_of() -> list[Room]:
    base = set(modules_of(BASE)) - set(modules_of(NOT_BASE))
    rooms, small = [], [0, 0]
    for storey, names in enumerate(storeys()):
        for name in names:
            if name == "__main__":
                continue  # it is the door, and no room
            place = AGENT / name
            modules = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
            sizes = [0, 0]
            for path in modules:
                sizes[path not in base] += len(lines_of(path)[0])
            if name in SUBJECTS:
                rooms.append(Room(name, storey, *map(_rounded, sizes)))
            else:
                small = [one + more for one, more in zip(small, sizes, strict=True)]
    return [*rooms, Room(_SMALL, storey + 1, *map(_rounded, small))]


def _rounded(lines: int) -> int:
    return round(lines / _LEAST) * _LEAST


def imports_of(rooms: list[Room]) -> set[tuple[str, str]]:
    """Who imports whom, between rooms."""
    graph = grimp.build_graph("agent", cache_dir=None)
    own = {room.name for room in rooms}

    def room_of(module: str) -> str:
        name = module.split(".")[1] if "." in module else ""
        return name if name in own else _SMALL

    found = set()
    for module in graph.modules - {"agent.__main__"}:
        for other in graph.find_modules_directly_imported_by(module):
            found.add((room_of(module), room_of(other)))
    return {(one, other) for one, other in found if one != other}


def draw() -> str:
    rooms = rooms_of()
    imports = imports_of(rooms)
    matrix = _BAR + int(max(it.base + it.more for it in rooms) / _LINES_A_PIXEL) + 90
    width, height = matrix + _CELL * len(rooms) + 30, _TOP + _ROW * len(rooms) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="The rooms of agent/, each above all that it imports">',
        f'<style>{_STYLE}</style><rect class="paper" width="{width}" height="{height}"/>',
        f'<path class="roof" d="M14 {_TOP - 8}L{matrix / 2 - 30:g} 40L{matrix - 44} {_TOP - 8}"/>',
        '<text class="title" x="14" y="28">agent/: imports go down</text>',
        *_columns(rooms, matrix),
    ]
    for row, room in enumerate(rooms):
        parts += _row(room, rooms, imports, _TOP + _ROW * row, matrix)
    parts += [*_legend(height - 22), "</svg>"]
    return "\n".join(parts) + "\n"


def _columns(rooms: list[Room], left: int) -> Iterator[str]:
    for column, room in enumerate(rooms):
        place = f"translate({left + _CELL * column + 14} {_TOP - 8}) rotate(-60)"
        yield f'<text class="soft" transform="{place}">{room.name}</text>'


def _row(
    room: Room, rooms: list[Room], imports: set[tuple[str, str]], y: int, left: int
) -> Iterator[str]:
    number = rooms.index(room)
    if number and rooms[number - 1].storey != room.storey:
        end = left + _CELL * len(rooms)
        yield f'<line class="line" x1="14" x2="{end}" y1="{y}" y2="{y}"/>'
    middle = y + _ROW - 9
    yield f'<text class="room" x="14" y="{middle}">{room.name}</text>'
    subject = escape(SUBJECTS.get(room.name, _SMALL_ONES))
    yield f'<text class="soft" x="112" y="{middle}">{subject}</text>'
    x = float(_BAR)
    for kind, lines in (("base", room.base), ("more", room.more)):
        long = lines / _LINES_A_PIXEL
        yield f'<rect class="{kind}" x="{x:g}" y="{y + 6}" width="{long:.0f}" height="14"/>'
        x += round(long)
    yield f'<text class="soft" x="{x + 6:g}" y="{middle}">{room.base + room.more:,}</text>'
    for column, other in enumerate(rooms):
        if (room.name, other.name) in imports:
            yield f'<circle class="dot" cx="{left + _CELL * column + 10}" cy="{y + 13}" r="5"/>'
        elif room is other:
            x, square = left + _CELL * column + 6, y + 9
            yield f'<rect class="more" x="{x}" y="{square}" width="8" height="8"/>'


def _legend(y: int) -> Iterator[str]:
    words = (
        ("base", "lines of the base: they keep sessions alive"),
        ("more", "lines of what an operator may not need"),
    )
    for place, (kind, text) in enumerate(words):
        x = 14 + 330 * place
        yield f'<rect class="{kind}" x="{x}" y="{y - 10}" width="12" height="12"/>'
        yield f'<text class="soft" x="{x + 18}" y="{y}">{text}</text>'
    yield f'<circle class="dot" cx="682" cy="{y - 4}" r="5"/>'
    yield f'<text class="soft" x="694" y="{y}">the room imports the room of that column</text>'


def main() -> int:
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
