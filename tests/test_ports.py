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
    taken, other, third = free_port(), free_port(), 11_987
    asked = [str(port) for port in (taken, other, third)]
    command = [sys.executable, "-c", OTHER_PROCESS, *asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) == third
    chosen: Iterator[int] = iter((taken, other, third))
    monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: next(chosen))
    assert free_port() == third
