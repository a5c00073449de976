"""Each script prints its usage, however it is called."""

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["chaos", "install", "package", "run", "simulate", "uninstall"])
def test_help_prints_the_usage_and_nothing_else(name: str) -> None:
    done = subprocess.run(
        [f"./scripts/{name}", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"scripts/{name}" in done.stdout
