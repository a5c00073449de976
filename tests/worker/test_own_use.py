"""A worker measures its own use, its children included, for an agent that cannot."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.worker.own_use import open_files, own_use

HOARD = "import sys; hoard = b'x' * (48 << 20); print(flush=True); sys.stdin.read()"


def test_the_use_of_all_children_counts_wherever_they_went() -> None:
    before = own_use()
    child = subprocess.Popen(
        [sys.executable, "-c", HOARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    during = own_use()
    child.communicate()
    assert during["memory_bytes"] - before["memory_bytes"] > 44 << 20
    assert during["cpu_seconds"] >= before["cpu_seconds"]
    assert during["processes"] == before["processes"] + 1
    assert own_use()["processes"] == before["processes"]


async def test_a_worker_tells_it_over_its_link(bench: Any) -> None:
    link = await bench.connected()
    told = await link.call("own_use")
    assert 4 << 20 < told["memory_bytes"] < 64 << 20
    assert told["cpu_seconds"] > 0
    assert told["processes"] == 1


OPENS = "import sys; kept = [open('/dev/null') for _ in range(40)]; print(); sys.stdin.read()"


ALONE = """
import os, sys
from agent.worker.own_use import open_files
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


def test_an_ended_process_has_no_figures() -> None:
    assert open_files(2**22 + 1) == 0
