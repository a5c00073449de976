"""The whole machine's memory, and how busy its cores are, by the kernel."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Bytes. `available`: what can be had without swapping."""

    total: int
    available: int


def machine_memory() -> MachineMemory:
    values = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        values[name] = rest
    total, available = (int(values[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return MachineMemory(total * 1024, available * 1024)


class CoreUse:
    """The share of all cores' time that was used between two readings."""

    def __init__(self) -> None:
        self._before = _core_ticks()

    def read(self) -> float:
        before, self._before = self._before, _core_ticks()
        busy, total = (now - then for now, then in zip(self._before, before, strict=True))
        return min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0


def _core_ticks() -> tuple[int, int]:
    """Busy, and altogether. Guests' time is in their hosts' already."""
    with Path("/proc/stat").open(encoding="ascii") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
