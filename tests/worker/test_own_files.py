"""A worker counts the files that it and its children have open."""

import subprocess
import sys
from pathlib import Path

from agent.worker.own_files import open_files

OPENS = "import sys; kept = [open('/dev/null') for _ in range(40)]; print(); sys.stdin.read()"


ALONE = """
import os, sys
from agent.worker.own_files import open_files
before = open_files()
assert before == len(os.listdir("/proc/self/fd")) - 1, before
with open(sys.argv[1], "w"), open(sys.argv[2], "w"):
    assert open_files() == before + 2
"""


def test_its_own_are_counted(tmp_path: Path) -> None:
    """In a process of its own: others' tests leave this one children."""
    command = [sys.executable, "-c", ALONE, str(tmp_path / "one"), str(tmp_path / "two")]
    subprocess.run(command, check=True)


def test_those_of_what_it_started_are_too() -> None:
    before = open_files()
    child = subprocess.Popen(
        [sys.executable, "-c", OPENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    during = open_files()
    child.communicate()
    assert before + 40 < during < before + 60
    assert open_files() == before


def test_one_that_is_gone_has_none() -> None:
    assert open_files(2**22 + 1) == 0
