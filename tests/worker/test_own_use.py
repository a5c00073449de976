"""A worker tells what it uses itself, its children included, for where nobody else may look."""

import subprocess
import sys
from typing import Any

from agent.worker.own_use import own_use

HOARD = "import sys; hoard = b'x' * (48 << 20); print(flush=True); sys.stdin.read()"


def test_the_children_are_told_with_it_wherever_they_went() -> None:
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
