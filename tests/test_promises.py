"""The table of promises: its sentences stand in the READMEs, and its tests exist."""

import re
from pathlib import Path

from tests.test_faults_table import known_tests

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\S+\.md) \| (.+) \| ((?:`test_\w+` ?)+) \|$", re.MULTILINE)


def plain(text: str) -> str:
    """Without line breaks, and without what only marks words."""
    return " ".join(text.replace("**", "").split())


def broken(table: str, tests: set[str]) -> list[str]:
    """What is wrong with the table, a sentence each."""
    rows = ROW.findall(table)
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    found = [] if len(rows) == len(lines) else [f"{len(lines) - len(rows)} rows cannot be read"]
    for file, promise, named in rows:
        if plain(promise) not in plain((ROOT / file).read_text(encoding="utf-8")):
            found.append(f"{file} does not say {promise!r} any more: change its row, too")
        missing = set(re.findall(r"`(test_\w+)`", named)) - tests
        found += [f"{promise!r} names {name}, and there is no such test" for name in missing]
    return found


def test_every_promise_stands_in_its_readme_and_has_its_tests() -> None:
    table = (ROOT / "tests/PROMISES.md").read_text(encoding="utf-8")
    assert broken(table, known_tests(ROOT / "tests")) == []


def test_a_promise_that_went_and_a_test_that_went_are_found() -> None:
    gone = "| README.md | it never rains | `test_x` |\n"
    assert len(broken(f"| where |\n{gone}", {"test_x"})) == 1
    assert len(broken(f"| where |\n{gone}", set())) == 2
    assert broken("| where |\n| README.md | no test |\n", set()) == ["1 rows cannot be read"]
