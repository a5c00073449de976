"""scripts/check --house counts what a reader has to read."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from agent.cli.groups import WORDS
from scripts import house, picture

MODULE = '''"""One
subject."""

import json
from os import (
    path,
)

# why
TEXT = """no
docstring"""


def dump() -> str: ...


class Thing:
    """A thing."""

    field = 1
    """Its field."""
'''


def test_a_line_of_code_is_no_blank_no_comment_and_no_docstring(tmp_path: Path):
    module = tmp_path / "module.py"
    module.write_text(MODULE)
    code, imports = house.lines_of(module)
    assert (len(code), len(imports)) == (9, 4)


@pytest.mark.parametrize("room", house.BASE)
def test_each_room_of_the_base_is_there(room: str):
    assert list(house.modules_of((room,)))


def test_each_goal_is_printed_as_met_or_missed(capsys: pytest.CaptureFixture[str]):
    status = house.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if " goal " in line]
    assert len(rows) == 4
    assert status == any(row.endswith("missed") for row in rows)


def test_the_picture_of_the_house_is_current():
    assert picture.PICTURE.read_text() == picture.draw(), "draw it: ./scripts/check --picture"


def test_each_room_says_in_the_picture_what_it_is_for():
    rooms = {path.parent.name for path in picture.AGENT.glob("*/__init__.py")}
    assert rooms == set(picture.SUBJECTS)


DOORS = {
    "config/alerts.py": {"config/config", "config/rules"},
    "config/backend_rules.py": {"config/rules"},
    "config/backends.py": {"config", "config/config", "config/environment", "config/load",
                           "config/render"},
    "config/fleet.py": {"config", "config/config", "config/rules"},
    "core/alerts": {"config/config"},
    "core/fleet": {"api/app", "core/view", "daemon/wing_parts",
                   "supervise/agent_status"},
    "api/http/fleet_gate.py": {"api/assemble", "api/http/call"},
    "cli/backends": {"cli/main"},
    "engines/sandbox/chat": {"engines/sandbox/engine"},
    "supervise/backends": {"daemon/main", "daemon/tasks", "supervise/assemble",
                           "supervise/passes/observe", "supervise/passes/wait_reasons",
                           "supervise/requests/creation", "supervise/story",
                           "supervise/supervisor"},
    "supervise/copies/archives.py": {"supervise/supervisor"},
    "supervise/copies/invitations.py": {"supervise/supervisor"},
    "supervise/fleet": {"api/assemble", "daemon/main", "daemon/parts"},
    "supervise/messages": {"daemon/wing_parts", "supervise/assemble", "supervise/passes/happenings",
                           "supervise/supervisor"},
    "supervise/**/packs*": {"supervise/assemble"},
    "worker/backend": {"worker/__main__"},
    "worker/leased": {"worker/run"},
    "worker/pack*": {"worker/__main__"},
}  # fmt: skip
"""What is counted aside → the modules of the base that import it."""
BY_NAME = {
    "engines/sandbox/engine": "engines/catalog.py",
    **{f"cli/{name.replace('.', '/')}": "cli/groups.py" for name in WORDS},
}
"""Modules of the base that no module of it imports → what names them."""


@cache
def base() -> frozenset[Path]:
    return frozenset(house.modules_of(house.BASE)) - frozenset(house.modules_of(house.NOT_BASE))


def name_of(path: Path) -> str:
    path = path.parent if path.name == "__init__.py" else path.with_suffix("")
    return str(path.relative_to(house.AGENT))


@cache
def imported_by(path: Path) -> frozenset[Path]:
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            place = house.AGENT.parent / name.replace(".", "/")
            yield from (
                at for at in (place.with_suffix(".py"), place / "__init__.py") if at.exists()
            )


@pytest.mark.parametrize("room", house.NOT_BASE)
def test_the_base_imports_what_is_counted_aside_at_its_doors_only(room: str) -> None:
    aside = set(house.modules_of((room,)))
    assert aside
    found = {name_of(path) for path in base() if imported_by(path) & aside}
    assert found == DOORS.get(room, set())


def test_the_base_has_no_module_that_it_does_not_use() -> None:
    used = frozenset[Path]().union(*(imported_by(path) for path in base()))
    left = {name_of(path) for path in base() - used if not path.name.startswith("__")}
    assert left == set(BY_NAME) & {name_of(path) for path in base() - used}
