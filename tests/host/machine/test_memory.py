"""The machine's memory and the use of its cores, as the kernel tells them."""

import psutil
import pytest

from agent.host.machine.memory import CoreUse, machine_memory


def test_memory_is_what_others_read_too() -> None:
    found, theirs = machine_memory(), psutil.virtual_memory()
    assert found.total == theirs.total
    assert found.available == pytest.approx(theirs.available, rel=0.05)


def test_a_core_that_works_is_seen_and_no_time_is_no_use() -> None:
    use = CoreUse()
    before = psutil.cpu_times()
    while psutil.cpu_times().user - before.user < 0.2:
        sum(range(10_000))
    assert 0.0 < use.read() <= 1.0
    assert 0.0 <= use.read() <= 1.0
