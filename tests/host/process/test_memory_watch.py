"""All processes are looked at when one may have grown, and now and then in any case."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.host.process.memory_watch import LOOK_ANYWAY, MemoryWatch

MIB = 1 << 20
GROWS = """
import sys
print("small", flush=True)
sys.stdin.readline()
held = bytearray(b"x" * (64 << 20))
print("large", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def leak() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", GROWS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "small\n"
        yield process
        process.kill()


def grow(leak: subprocess.Popen[str]) -> None:
    assert leak.stdin is not None and leak.stdout is not None
    leak.stdin.write("\n")
    leak.stdin.flush()
    assert leak.stdout.readline() == "large\n"


def test_a_grown_worker_is_noticed_as_soon_as_the_machine_has_less_memory(
    leak: subprocess.Popen[str],
) -> None:
    free = [1000 * MIB]
    watch, limits = MemoryWatch(lambda: free[0]), {leak.pid: 48 * MIB}
    assert watch.over_limit(limits) == {}
    grow(leak)
    free[0] += 500 * MIB  # another program ends: what is missing is missing from the most
    assert watch.over_limit(limits) == {}, "nothing says that a worker grew"
    free[0] -= 64 * MIB
    assert watch.over_limit(limits)[leak.pid] > 48 * MIB


def test_growth_that_others_hide_is_noticed_by_the_regular_check(
    leak: subprocess.Popen[str],
) -> None:
    watch, limits = MemoryWatch(lambda: 1000 * MIB), {leak.pid: 48 * MIB}
    assert watch.over_limit(limits) == {}
    grow(leak)
    found = [watch.over_limit(limits) for _ in range(LOOK_ANYWAY)]
    assert [bool(one) for one in found] == [False] * (LOOK_ANYWAY - 1) + [True]
