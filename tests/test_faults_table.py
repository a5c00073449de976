"""The table of faults in tests/README.md: every row is there, each test that it names exists."""

import re
from pathlib import Path

import pytest

from agent.engines.sandbox.faults import FAULTS
from tests.system import test_faults

ROOT = Path(__file__).parents[1]
ROWS = [f"F{number:02}" for number in range(1, 89)]
SEEN_FROM_OUTSIDE = [
    *(f"A{number}" for number in range(1, 13)),
    *(f"R{number}" for number in range(1, 8)),
    *(f"E{number}" for number in range(1, 9)),
    *(f"W{number}" for number in range(1, 9)),
    *(f"S{number}" for number in range(1, 10)),
    *(f"O{number}" for number in range(1, 13)),
    *(f"W{number}" for number in range(9, 13)),
    *(f"D{number:02}" for number in range(1, 6)),
    *("T1", "T2"),
    *(f"B{number}" for number in range(1, 16) if number != 12),
    *("D20", "D22", "D23", "D24"),
    *(f"H{number}" for number in range(9)),
    *(f"N{number}" for number in range(21)),
    *(f"P{number}" for number in range(1, 7)),
    *(f"Q{number}" for number in range(1, 6)),
    *(f"W{number}" for number in range(20, 26)),
    *("X1", "X2", "X3", "X4", "X9", "X10", "X11"),
]
"""Faults of whole installations; one of them may have several rows."""


def known_tests(folder: Path) -> set[str]:
    return {
        name
        for path in folder.rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }


def problems(table: str, tests: set[str]) -> list[str]:
    """What is wrong with it, one sentence each."""
    lines = re.findall(r"^\| (F\d\d) (.*)$", table, re.MULTILINE)
    seen = [row for row, _ in lines]
    found = [f"row {row} is missing" for row in ROWS if row not in seen]
    found += [f"row {row} stands there twice" for row in sorted({*seen}) if seen.count(row) > 1]
    for row, line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        if row not in ROWS:
            found.append(f"row {row} is no fault of the matrix")
        if not named and not re.search(r"\| not yet: \w", line):
            found.append(f"row {row} names neither a test nor what it waits for (not yet: ...)")
        for name in named:
            numbers = re.findall(r"f\d\d", re.match(r"test((?:_f\d\d)*)", name)[1])
            if name not in tests:
                found.append(f"row {row} names {name}, and there is no such test")
            elif numbers and row.lower() not in numbers:
                found.append(f"row {row} names {name}, which is another row's")
    return found


def test_every_fault_has_its_test_or_says_what_it_waits_for() -> None:
    table = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    assert problems(table, known_tests(ROOT / "tests")) == []


def test_every_fault_of_an_installation_names_tests_that_exist() -> None:
    table = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-EG-Z]\d+) .*\| ([^|]*) \|$", table, re.MULTILINE)
    assert sorted({row for row, _ in rows}) == sorted(SEEN_FROM_OUTSIDE)
    assert [row for row, tests in rows if "`test_" not in tests] == []
    named = {name for _, tests in rows for name in re.findall(r"`(test_\w+)`", tests)}
    assert named - known_tests(ROOT / "tests") == set()


def test_every_test_that_the_tables_name_exists() -> None:
    table = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\|.*\| ([^|]*) \|$", table, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(test_\w+)`", cell)}
    assert named - known_tests(ROOT / "tests") == set()


def whole_table(**instead: str) -> str:
    rows = {row: f"| {row} a fault | it ends | `test_x` |" for row in ROWS} | instead
    return "\n".join(rows.values())


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (whole_table(), []),
        (whole_table(F07=""), ["row F07 is missing"]),
        (whole_table(F07="| F07 a fault | not yet: webhooks | |"), []),
        (
            whole_table(F07="| F07 a fault | it ends | |"),
            ["row F07 names neither a test nor what it waits for (not yet: ...)"],
        ),
        (
            whole_table(F07="| F07 a fault | it ends | `test_gone` |"),
            ["row F07 names test_gone, and there is no such test"],
        ),
        (
            whole_table(F07="| F07 a fault | it ends | `test_f08_y` |"),
            ["row F07 names test_f08_y, which is another row's"],
        ),
        (whole_table() + "\n| F01 again | x | `test_x` |", ["row F01 stands there twice"]),
        (whole_table() + "\n| F89 new | x | `test_x` |", ["row F89 is no fault of the matrix"]),
    ],
)
def test_a_wrong_table_is_found_out(table: str, found: list[str]) -> None:
    assert problems(table, {"test_x", "test_f08_y"}) == found


def test_on_real_systemd_no_fault_of_the_sandbox_is_forgotten() -> None:
    played = (*test_faults.BACK, *test_faults.DOWN, *test_faults.UNPAIRED)
    assert sorted(played) == sorted(FAULTS)
