"""A port that a test got is no other test's, bound or not."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.line import line_to
from tests.ports import free_port
from tests.standin.evolution import StandIn
from tests.standin.whaticket.server import StandIn as Desk
from tests.wings.webhooks.receiver import Receiver

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


async def test_a_server_that_closes_for_a_while_has_a_port_that_no_other_gets(
    tmp_path: Path,
) -> None:
    """The kernel hands out those from the lowest on, to whatever connects meanwhile."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    server = await StandIn.open()
    await server.close()
    async with line_to(9) as line, Receiver().open() as receiver, Desk.opened(tmp_path) as desk:
        ports = [server.front.port, line.port, receiver.port, desk.port]
    assert max(ports) < lowest, ports
