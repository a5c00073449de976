"""A port that a test got is no other test's, bound or not."""

import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.ports import free_port

OTHER_PROCESS = """
import random, sys
ports = iter(int(word) for word in sys.argv[1:])
random.SystemRandom.randrange = lambda *_: next(ports)
from tests.ports import free_port
print(free_port())
"""


def test_a_port_that_is_not_bound_yet_is_given_away_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, other = free_port(), free_port()
    others = range(11_900, 12_000)  # another program may have one of them
    asked = [str(port) for port in (taken, other, *others)]
    command = [sys.executable, "-c", OTHER_PROCESS, *asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) in others
    chosen: Iterator[int] = iter((taken, other, *others))
    monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: next(chosen))
    assert free_port() in others
