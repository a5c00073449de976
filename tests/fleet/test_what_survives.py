"""The table of what a fleet survives names tests that exist."""

import re
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_every_row_names_a_test_or_says_that_sessions_may_run_twice() -> None:
    readme = (TOP / "agent/fleet/README.md").read_text()
    table = readme.partition("## What a fleet survives")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    files = (*TOP.glob("tests/fleet/**/test_*.py"), *TOP.glob("tests/core/fleet/test_*.py"))
    tests = "\n".join(path.read_text() for path in files)
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        for name in named:
            assert f"def {name}(" in tests, name
        assert named or "`scripts/simulate fleet`" in row or "run twice**" in row, row
