"""The machine's memory and the use of its cores, as the kernel tells them."""

import psutil

from agent.host.machine.memory import CoreUse, machine_memory


def test_memory_is_what_others_read_too() -> None:
    before, found, after = psutil.virtual_memory(), machine_memory(), psutil.virtual_memory()
    assert found.total == before.total
    theirs = sorted((before.available, after.available))
    assert 0.95 * theirs[0] < found.available < 1.05 * theirs[1]


def test_a_core_that_works_is_seen_and_no_time_is_no_use() -> None:
    use = CoreUse()
    before = psutil.cpu_times()
    while psutil.cpu_times().user - before.user < 0.2:
        sum(range(10_000))
    assert 0.0 < use.read() <= 1.0
    assert 0.0 <= use.read() <= 1.0
