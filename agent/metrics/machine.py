"""The figures of this process and this machine, by the names of their metrics."""

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.clock import boot_now
from agent.host.machine.memory import CoreUse, machine_memory
from agent.host.machine.proc_table import TICKS, read_process
from agent.metrics.family import Family

_FRESH_SECONDS = 5.0

_MEANINGS = {
    "process_cpu_seconds_total": "CPU time of the agent.",
    "process_resident_memory_bytes": "Resident memory of the agent.",
    "process_open_fds": "Open file descriptors of the agent.",
    "process_max_fds": "File descriptors that the agent may open.",
    "process_start_time_seconds": "Start of the agent's process.",
    "wa_host_memory_total_bytes": "Memory of the machine.",
    "wa_host_memory_used_bytes": "Memory in use on the machine.",
    "wa_host_cpu_usage_ratio": "Use of all cores since the last reading.",
    "wa_host_filesystem_avail_bytes": "Free space where the agent writes.",
    "wa_host_filesystem_size_bytes": "Size of the file system it writes to.",
}


class MachineFigures:
    def __init__(self, state_path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state_path = state_path
        self._clock = clock
        self._cores = CoreUse()
        self._read_at = -1e9
        self._values: dict[str, float] = {}
        itself = read_process(os.getpid())
        age = boot_now() - (itself.start_ticks / TICKS if itself else 0.0)
        self._started_wall = time.time() - age

    def values(self) -> Mapping[str, float]:
        """Each figure by its metric's name, without unreadable ones."""
        if self._clock() - self._read_at >= _FRESH_SECONDS:
            self._values = {**dict(self._process_and_host()), **dict(self._filesystem())}
            self._read_at = self._clock()
        return self._values

    def families(self) -> Iterator[Family]:
        mount = {"mountpoint": _mount_point(self._state_path)}
        for name, value in self.values().items():
            labels = mount if "filesystem" in name else {}
            yield Family(name, _MEANINGS[name], [(labels, value)])

    def _process_and_host(self) -> Iterator[tuple[str, float]]:
        itself, memory = read_process(os.getpid()), machine_memory()
        yield "process_cpu_seconds_total", time.process_time()
        yield "process_resident_memory_bytes", itself.rss_bytes if itself else 0
        yield "process_open_fds", len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - its own
        yield "process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield "process_start_time_seconds", self._started_wall
        yield "wa_host_memory_total_bytes", memory.total
        yield "wa_host_memory_used_bytes", memory.total - memory.available
        yield "wa_host_cpu_usage_ratio", self._cores.read()

    def _filesystem(self) -> Iterator[tuple[str, float]]:
        try:
            status = os.statvfs(self._state_path)
        except OSError:
            return  # it is gone: a missing figure is better than an old one
        yield "wa_host_filesystem_avail_bytes", status.f_bavail * status.f_frsize
        yield "wa_host_filesystem_size_bytes", status.f_blocks * status.f_frsize


def _mount_point(path: Path) -> str:
    """The mount point of the path's file system, as other exporters name it."""
    folder = path.absolute()
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return str(folder)
