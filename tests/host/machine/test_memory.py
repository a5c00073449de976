"""The machine's memory and the use of its cores, as the kernel tells them."""

import psutil

from agent.host.machine.memory import CoreUse, machine_memory


def test_memory_is_what_others_read_too() -> None:
    while True:  # until no other program changes it much meanwhile
        before, found, after = psutil.virtual_memory(), machine_memory(), psutil.virtual_memory()
        if abs(before.available - after.available) < 0.01 * before.available:
            break
    assert found.total == before.total
    assert 0.95 * before.available < found.available < 1.05 * after.available


def test_a_core_that_works_is_seen_and_no_time_is_no_use() -> None:
    use = CoreUse()
    before = psutil.cpu_times()
    while psutil.cpu_times().user - before.user < 0.2:
        sum(range(10_000))
    assert 0.0 < use.read() <= 1.0
    assert 0.0 <= use.read() <= 1.0
