"""scripts/check --house counts what a reader has to read."""

from pathlib import Path

import pytest

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
