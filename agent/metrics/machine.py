"""The figures of this process and this machine, read at most every few seconds."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from agent.metrics.text import COUNTER, GAUGE, Family, sample

_FRESH_SECONDS = 5.0

_FAMILIES = {
    family.name: family
    for family in (
        Family("process_cpu_seconds_total", COUNTER, "CPU time of the agent."),
        Family("process_resident_memory_bytes", GAUGE, "Resident memory of the agent."),
        Family("process_open_fds", GAUGE, "Open file descriptors of the agent."),
        Family("process_max_fds", GAUGE, "File descriptors that the agent may open."),
        Family("process_start_time_seconds", GAUGE, "When the agent's process began."),
        Family("wa_host_memory_total_bytes", GAUGE, "The machine's memory."),
        Family("wa_host_memory_used_bytes", GAUGE, "What of it cannot be had any more."),
        Family("wa_host_cpu_usage_ratio", GAUGE, "Use of all cores since the last reading."),
        Family("wa_host_filesystem_avail_bytes", GAUGE, "Free space where the agent writes."),
        Family("wa_host_filesystem_size_bytes", GAUGE, "Size of the file system it writes to."),
    )
}


class MachineFigures:
    def __init__(self, state_path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state_path = state_path
        self._clock = clock
        self._process = psutil.Process()
        self._started = self._process.create_time()
        psutil.cpu_percent()  # the first reading has nothing to compare itself with
        self._read_at = -1e9
        self._lines: list[tuple[Family, str]] = []

    def samples(self) -> Iterator[tuple[Family, str]]:
        if self._clock() - self._read_at >= _FRESH_SECONDS:
            self._lines = list(self._read())
            self._read_at = self._clock()
        yield from self._lines

    def _read(self) -> Iterator[tuple[Family, str]]:
        cpu = self._process.cpu_times()
        memory = psutil.virtual_memory()
        for name, value in (
            ("process_cpu_seconds_total", cpu.user + cpu.system),
            ("process_resident_memory_bytes", self._process.memory_info().rss),
            ("process_open_fds", self._process.num_fds()),
            ("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            ("process_start_time_seconds", self._started),
            ("wa_host_memory_total_bytes", memory.total),
            ("wa_host_memory_used_bytes", memory.total - memory.available),
            ("wa_host_cpu_usage_ratio", psutil.cpu_percent() / 100),
        ):
            yield _FAMILIES[name], sample(name, value)
        yield from self._filesystem()

    def _filesystem(self) -> Iterator[tuple[Family, str]]:
        try:
            found = os.statvfs(self._state_path)
        except OSError:
            return  # gone for the moment: no figure is truer than an old one
        place = str(self._state_path)
        for name, blocks in (
            ("wa_host_filesystem_avail_bytes", found.f_bavail),
            ("wa_host_filesystem_size_bytes", found.f_blocks),
        ):
            yield _FAMILIES[name], sample(name, blocks * found.f_frsize, mountpoint=place)
