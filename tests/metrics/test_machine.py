"""The figures of this process and this machine."""

from collections.abc import Callable
from pathlib import Path

from agent.metrics.exporter import MachineFigures


def test_figures_are_of_this_process_this_machine_and_its_fullest_disk(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    (full := small_disk("size=1m")).joinpath("all").write_bytes(bytes(1 << 20))
    found = MachineFigures(tmp_path, full, small_disk("nr_inodes=1")).values()
    assert found["process_open_fds"] <= found["process_max_fds"]
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert 0 < found["wa_host_memory_used_bytes"] < found["wa_host_memory_total_bytes"]
    assert 0 <= found["wa_host_cpu_usage_ratio"] <= 1
    assert found["wa_host_filesystem_size_bytes"] == 1 << 20
    assert found["wa_host_filesystem_avail_bytes"] == found["free_files"] == 0


def test_a_state_directory_that_is_gone_costs_only_its_own_figures(tmp_path: Path) -> None:
    found = MachineFigures(tmp_path / "gone").values()
    assert "wa_host_filesystem_size_bytes" not in found
    assert "process_open_fds" in found
