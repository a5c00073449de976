"""A worker measures its own use, its children included, for an agent that cannot."""

import subprocess
import sys

HOARD = "import sys; hoard = b'x' * (48 << 20); print(flush=True); sys.stdin.read()"
OPENS = "import sys; kept = [open('/dev/null') for _ in range(40)]; print(); sys.stdin.read()"
ALONE = """
import os, subprocess, sys
from agent.worker.run import open_files, own_use

def started(code):
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
    child.stdout.readline()
    return child
"""


def alone(code: str, *arguments: object) -> None:
    """In a process of its own: others' tests leave this one children."""
    subprocess.run([sys.executable, "-c", ALONE + code, *map(str, arguments)], check=True)


USE = f"""
before = own_use()
child = started({HOARD!r})
during = own_use()
child.communicate()
assert during["memory_bytes"] - before["memory_bytes"] > 44 << 20, (before, during)
assert during["cpu_seconds"] >= before["cpu_seconds"]
assert (before["processes"], during["processes"], own_use()["processes"]) == (1, 2, 1)
"""


def test_the_use_of_all_children_counts_wherever_they_went() -> None:
    alone(USE)


THEIRS = f"""
before = open_files()
child = started({OPENS!r})
during = open_files()
child.communicate()
assert before + 40 < during < before + 60, (before, during)
assert open_files() == before
"""


def test_those_of_what_it_started_are_too() -> None:
    alone(THEIRS)
